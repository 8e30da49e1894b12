"""What the kernels of :mod:`.triton` have in common.

Paper: EMA, arXiv 2305.13563, section 3; the names follow ``reference.py``.

- Sums are made in ``ACC`` (float32; float64 for float64 maps), in an order that the launch fixes: a program writes the
  sums of its own tile, and a later launch adds up the tiles. No atomics.
- ``LAST`` says channels-last. Memory of the map is (B, C, H, W) or (B, H, W, C); strips of length l are (B, C, l) or
  (B, l, C), and maps with one number a group (B, groups, H, W) or (B, H, W, groups), so that neighbouring threads
  always read neighbouring numbers.
- A *tile* is ``rows`` rows by ``BW`` columns. A program walks down it in chunks of ``BH`` rows by ``BW`` columns by
  ``CB`` channels, and keeps its column sums in registers.
- ``kept`` and ``scratch`` are single buffers; :func:`kept` and ``triton_backward._scratch`` hold their layouts
  (:mod:`.triton` makes them of these sizes). Offsets in them and between images are 64 bits wide, those within an
  image 32.
"""

import triton
import triton.language as tl


@triton.jit
def strides(C, H, W, LAST: tl.constexpr):
    """Of channel, row and column in an image."""
    if LAST:
        return 1, W * C, C
    else:
        return H * W, W, 1


@triton.jit
def strip(channel, position, length, C, LAST: tl.constexpr):
    """Offset in the strips of an image."""
    if LAST:
        return position * C + channel
    else:
        return channel * length + position


@triton.jit
def kept(kept, B, C, H, W, group_channels: tl.constexpr):
    """Strip means and gates (B, C, H + W), five numbers a channel, T (B, C, 9), a constant a group, F (c, 9)."""
    channels = B.to(tl.int64) * C
    strips = channels * (H + W)
    numbers = kept + 2 * strips
    taps = numbers + 4 * channels
    constant = taps + 9 * channels
    stencil = constant + channels // group_channels
    return kept, kept + strips, numbers, channels, taps, constant, stencil


@triton.jit
def tile_sum(pointer, step, count, offsets, mask, zero):
    """Sum over ``count`` tiles; four at once, so that their loads do not wait for each other."""
    total = zero
    for t0 in range(0, count, 4):
        for k in tl.static_range(4):
            t = t0 + k
            total += tl.load(pointer + t * step + offsets, mask=mask & (t < count), other=0)
    return total


@triton.jit
def softmax(logit, mask):
    logit = tl.where(mask, logit, -float('inf'))
    power = tl.exp(logit - tl.max(logit, 0))
    return power / tl.sum(power, 0)


@triton.jit
def optional(pointer, index, mask, PRESENT: tl.constexpr, ACC: tl.constexpr):
    """A bias; zeros if the layer has none."""
    if PRESENT:
        return tl.load(pointer + index, mask=mask, other=0).to(ACC)
    else:
        return tl.zeros(index.shape, ACC)
