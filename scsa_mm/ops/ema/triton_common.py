"""What the kernels of :mod:`.triton` have in common.

Paper: EMA, arXiv 2305.13563, section 3; the names follow ``reference.py``.

- Sums are made in ``ACC`` (float32; float64 for float64 maps), in an order that the launch fixes: a program writes the
  sums of its own tile, and a later launch adds up the tiles. No atomics.
- ``LAST`` says channels-last. Memory of the map is (B, C, H, W) or (B, H, W, C); strips of length l are (B, C, l) or
  (B, l, C), and maps with one number a group (B, G, H, W) or (B, H, W, G), so that neighbouring threads always read
  neighbouring numbers. Numbers of channels are (B, C) in both.
- A *tile* is BH rows by ``width`` columns of NC channels (of one in a contiguous map; where a program has whole groups,
  of four at once). A program is one warp for 128 to 512 numbers, so that nothing waits at barriers. It walks along it
  in steps of BW columns: what belongs to rows and to channels stays in registers, sums over rows need
  no other thread, and all classes of maps share a few compiled kernels. In tensors the order is (NC, BW, BH): Triton
  gives threads to the first dimensions first, where it sees no reason to do otherwise.
- Offsets between images are 64 bits wide, those within an image or in small buffers 32.
"""

import triton
import triton.language as tl

from ..triton_math import exp, sigmoid, strip_place


@triton.jit
def program(blocks, down, across, LAST: tl.constexpr):
    """Image, block of channels, row and column of tiles. Programs that start together read neighbouring memory."""
    pid = tl.program_id(0)
    if LAST:
        block = pid % blocks
        tile = pid // blocks
        col = tile % across
        row = tile // across % down
        return tile // (across * down), block, row, col
    else:
        col = pid % across
        row = pid // across % down
        plane = pid // (across * down)
        return plane // blocks, plane % blocks, row, col


@triton.jit
def load_gates(gate, b, channel, h, C, H, W, LAST: tl.constexpr):
    """Those of rows, and where those of columns start, in an image."""
    gate += b * C * (H + W)
    mask = (h < H) & (channel < C)
    return gate, tl.load(gate + strip_place(channel, h, C, H + W, LAST), mask=mask, other=0)


@triton.jit
def gated(value, gate_h, gate_w, inside):
    """y = x a_h a_w, rounded: a select keeps the compiler from fusing it with what comes next.

    So y - mu is exactly 0 in a map of one pixel, as it is in the reference.
    """
    return tl.where(inside, value * gate_h * gate_w, 0.0)


@triton.jit
def strip_element(c, groups, L, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """For programs that have all c channels of some positions: image, group, channel in it, position, and the place.

    The place is that in strips (B, C, L); the second last result says whether a thread has an element at all.
    """
    lane = tl.arange(0, BLOCK)
    many = BLOCK // c
    if LAST:
        k = tl.program_id(0) * many + lane // c
        i = lane % c
        g = k % groups
        p = k // groups % L
        b = k // (groups * L)
        at = k * c + i
    else:
        k = tl.program_id(0) * many + lane % many
        i = lane // many
        p = k % L
        n = k // L
        g = n % groups
        b = n // groups
        at = (n * c + i) * L + p
    return b, g, i, p, lane < many * c, at


@triton.jit
def whole_groups(total, c, LANES: tl.constexpr):
    """For programs that have some groups with all their channels: places in (B, C), and which lanes have one."""
    many = LANES // c * c
    lane = tl.arange(0, LANES)
    place = tl.program_id(0) * many + lane
    return place, (lane < many) & (place < total)


@triton.jit
def strip_total(
    by_row, by_col, b, channel, p, inside, B, C, H, W, steps, rows, LAST: tl.constexpr, AT_ONCE: tl.constexpr, zero
):  # fmt: skip
    """Sum of the parts of a strip; some at once, so that their loads do not wait for each other."""
    is_row = p < H
    length = tl.where(is_row, H, W)
    offset = b * C * length + strip_place(channel, tl.where(is_row, p, p - H), C, length, LAST)
    pointer = tl.where(is_row, by_row + offset, by_col + offset)
    count = tl.where(is_row, steps, rows)
    total = zero
    for t0 in range(0, tl.maximum(steps, rows), AT_ONCE):
        for k in tl.static_range(AT_ONCE):
            t = t0 + k
            total += tl.load(pointer + t * (B * C * length), mask=inside & (t < count), other=0)
    return total


@triton.jit
def softmax(logit, mask):
    logit = tl.where(mask, logit, -float('inf'))
    power = tl.where(mask, exp(logit - tl.max(logit, 0)), 0.0)
    return power / tl.sum(power, 0)


@triton.jit
def optional(pointer, index, mask, PRESENT: tl.constexpr, ACC: tl.constexpr):
    """A bias; zeros if the layer has none."""
    if PRESENT:
        return tl.load(pointer + index, mask=mask, other=0).to(ACC)
    else:
        return tl.zeros(index.shape, ACC)


@triton.jit
def spread_channels(channel, BW: tl.constexpr):
    """(NC, BW, 1): numbers of channels, loaded for each column, are where the map's own are and need no exchange."""
    return tl.broadcast_to(channel[:, None, None], [channel.shape[0], BW, 1])


@triton.jit
def group_channels(
    block, i, c, C, BW: tl.constexpr, NC: tl.constexpr, CP: tl.constexpr, DENSE: tl.constexpr, LAST: tl.constexpr
):  # fmt: skip
    """Channels of whole groups, each in CP places of NC, and which places have one; contiguous: from i on of a group.

    With ``DENSE``, c is CP: no place is empty, and loads can be vectors.
    """
    lane = tl.arange(0, NC)
    if not LAST:
        channel = block * c + i + lane
        valid = i + lane < c
    elif DENSE:
        channel = block * NC + lane
        valid = channel < C
    else:
        channel = (block * (NC // CP) + lane // CP) * c + lane % CP
        valid = (lane % CP < c) & (channel < C)
    return spread_channels(channel, BW), tl.broadcast_to(valid[:, None, None], [NC, BW, 1])


@triton.jit
def neighbour(w, p, H, W, TAP: tl.constexpr):
    """The pixel that a tap of the 3x3 window finds from column w, pixel p; and whether it exists.

    Few instructions: as numbers below 0 are large unsigned, one comparison says whether there is such a column, another
    whether there is such a row. Beyond the tile, where nothing comes of it, another pixel may be found.
    """
    dy: tl.constexpr = TAP // 3 - 1
    dx: tl.constexpr = TAP % 3 - 1
    p += dy * W + dx
    shown = p.to(tl.uint32) < (H * W).to(tl.uint32)
    if dx != 0:
        shown = shown & ((w + dx).to(tl.uint32) < W.to(tl.uint32))
    return p, shown


@triton.jit
def pixel_place(channel, p, C, size, LAST: tl.constexpr):
    """Offset of a pixel in its image."""
    return p * C + channel if LAST else channel * size + p


@triton.jit
def walk_place(channel, s, t, C, H, W, LAST: tl.constexpr):
    """Offset in its image of the pixel at step s of a walk along a row, or down in a contiguous map; t across."""
    return (t * W + s) * C + channel if LAST else (channel * H + s) * W + t


@triton.jit
def map_gate(logit, UNIT: tl.constexpr, ACC: tl.constexpr):
    """The gate of a map from what is kept of it: a logit of 16 bits, whose gate needs no better exp; else the gate."""
    if logit.dtype.primitive_bitwidth == 16:
        return (2.0 if UNIT else 1.0) / (1.0 + tl.exp(-logit.to(ACC)))
    else:
        return logit


@triton.jit
def to_keep(z, kept, UNIT: tl.constexpr):
    """What is kept of logits z: see ``map_gate``."""
    if kept.dtype.element_ty.primitive_bitwidth == 16:
        return z.to(kept.dtype.element_ty)
    else:
        return sigmoid(z, UNIT)
