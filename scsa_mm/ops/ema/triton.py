"""EMA in five launches forward and seven backward, for CUDA. Paper: arXiv 2305.13563, section 3.

Only x, one map a group and strips are ever of use (g: a group of c channels; sums and means over its pixels):

- Branch 1 is normalised with one group a channel, so that its mean is beta: its weight w1 = softmax(beta).
- Branch 2 pooled is the filters times nine shifted sums of x, which follow from the sums of rows and columns; w2 is its
  softmax, k = w2 gamma rstd.
- z = (3x3 stencil F = sum_o w1_o W_o) x + sum_c k_c (y_c - mu_c) + constant, with y = x a_h a_w.

Forward: strips; gates and F; moments of y; w2; z and out. Backward, with dz = (sum_c G_c x_c) sigmoid'(z): dz with its
product with y - mu; what groups take from these; gradients of the gates; of the strips; of x, with the sums of x times
shifts of dz; those of the parameters, in two launches. Moved at full size: 3 reads and 1 write forward, 5 reads and 1
write backward, and one map a group in the dtype of sums once written and twice read.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .. import gpu
from ..arithmetic import dense, dense_as, memory_format, sum_dtype, sum_type
from ..launch import Launch, Launches, compile_together
from ..triton_strips import LANGUAGE, strip_sums
from . import lean, triton_backward, triton_forward, triton_parameters
from .arguments import Options, Weights

MAX_GROUP_CHANNELS = 256
LARGEST = 2**31  # of what is counted in int32: numbers in one image, and in a buffer other than maps
# Programs that fill a large GPU: one warp each.
PROGRAMS = 4096
SHORTEST = 4  # walk of a program along a map
ELEMENTS = 256  # of a launch over strips, in one program
ALIGNED = 16  # numbers at whose multiples buffers are cut
# Of sums for parameters: threads' places in a program, and how many chunks there are at most of groups and tiles, which
# have many numbers, and of strips.
PLACES = 512
CHUNKS = 64
STRIP_CHUNKS = 512


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why these kernels cannot run on ``x``; empty if they can."""
    if reason := gpu.unsupported(x):
        return reason
    if x.numel() == 0:
        return 'the map is empty'
    b, channels, h, w = x.shape
    if channels // options.groups > MAX_GROUP_CHANNELS:
        return f'{channels // options.groups} channels a group, more than {MAX_GROUP_CHANNELS}'
    if channels * h * w >= LARGEST or b * channels * _most_numbers(h, w) >= LARGEST - 2**26:
        return 'x is too large'
    return lean.unsupported(x, weights, options)


def kept_like(x: Tensor, options: Options) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor that forward keeps beside x."""
    b, channels, h, w = x.shape
    size = _size(_kept_sizes(b, channels, h, w, options.groups))
    return [((b * options.groups * h * w,), x.dtype), ((size,), sum_dtype(x))]


def forward(x: Tensor, weights: Weights, options: Options) -> tuple[Tensor, tuple[Tensor, ...]]:
    """EMA of x (B, C, H, W), and what backward needs beside x: logits, and strips with numbers of channels."""
    x = dense(x)
    flat, tensors = _tensors(weights)
    plan = _plan_of(x, flat, tensors, options)
    with gpu.current(x):
        compile_together(plan.launches)
        out = torch.empty_like(x)
        logits = torch.empty(plan.logits, dtype=x.dtype, device=x.device)
        kept = torch.empty(plan.kept, dtype=plan.acc, device=x.device)
        scratch = torch.empty(plan.forward_scratch, dtype=plan.acc, device=x.device)
        plan.forward(x, out, logits, kept, scratch, *tensors)
    return out, (logits, kept)


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of the six parameters, given that of the output."""
    x = dense(x)
    grad = dense_as(grad, x)
    flat, tensors = _tensors(weights)
    plan = _plan_of(x, flat, tensors, options)
    with gpu.current(x):
        compile_together(plan.launches)
        dx = torch.empty_like(x)
        scratch = torch.empty(plan.backward_scratch, dtype=plan.acc, device=x.device)
        found = torch.empty(sum(plan.parameters), dtype=plan.parameters_dtype, device=x.device)
        plan.backward(grad, x, dx, *kept, scratch, found, *tensors)
    return dx, _split(found, flat, tensors[4], plan.parameters)


class Plan(NamedTuple):
    """The launches for a shape, and sizes of the buffers; of that of the parameters' gradients, each one's."""

    acc: torch.dtype
    parameters_dtype: torch.dtype
    logits: int
    kept: int
    forward_scratch: int
    backward_scratch: int
    parameters: list[int]
    forward: Launches
    backward: Launches
    launches: tuple[Launch, ...]


def _tensors(weights: Weights) -> tuple[list[Tensor | None], list[Tensor]]:
    """The parameters as they are, and dense; a missing bias is not read, so that any tensor will do."""
    flat = [t for layer in weights for t in layer]
    return flat, [_dense(flat[0] if t is None else t) for t in flat]


def _plan_of(x: Tensor, flat: list[Tensor | None], tensors: list[Tensor], options: Options) -> Plan:
    return make_plan(
        tuple(x.shape),
        x.dtype,
        memory_format(x) is torch.channels_last,
        options.groups,
        options.unit,
        tuple([None if t is None else t.dtype for t in flat]),
        not tensors[4].is_contiguous(),
    )


@lru_cache(maxsize=1024)
def make_plan(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    last: bool,
    groups: int,
    unit: bool,
    dtypes: tuple[torch.dtype | None, ...],
    filters_last: bool,
) -> Plan:
    """The plan for a map of this shape and memory format; dtypes of the parameters, None for one that is missing."""
    b, channels, h, w = shape
    acc = sum_type(dtype)
    double = acc == torch.float64
    ACC = LANGUAGE[acc]
    c = channels // groups
    all_groups, total, length = b * groups, b * channels, h + w
    mix, mix_bias, scale, shift, filters, filters_bias = (dtypes[0] if d is None else d for d in dtypes)
    has_mix_bias, _, has_shift, _, has_filters_bias = (d is not None for d in dtypes[1:])
    given = {d for d in dtypes if d is not None}
    parameters_dtype = given.pop() if len(given) == 1 else acc
    strides = (9 * c, 1, c) if filters_last else (9 * c, 9, 1)
    order = (c, 9) if filters_last else (1, 0)  # of filters in memory

    # Tiles of maps, lower ones where the neighbours of a pixel count. Few classes, as each is compiled.
    power = power_of_two(c)
    if last:
        vec = 4 if channels % 4 == 0 else 1
        shared = 4 if c % 4 == 0 else 2 if c == 2 and vec == 4 else 1
        nc = max(64 if channels > 32 else 32, power)
        bw = max(1, 128 // nc)
        heights = (2, 1) if nc == MAX_GROUP_CHANNELS else (4, 2)
        blocks, group_blocks, at_once = _parts(channels, nc), _parts(groups, nc // power), nc
        narrowest = 2 * bw
    else:
        vec = nc = shared = 1
        bw, heights = (32, (8, 4)) if w > 16 else (16, (16, 8)) if w > 8 else (8, (8, 8))
        # Four warps, where programs with all channels of a group would take long, one after the other.
        blocks, group_blocks, at_once = channels, groups, 4 if c > 16 else 1
        power, narrowest = at_once, bw
    warps = 1 if last else at_once
    tile, low = (_tile(b * blocks, h, w, bh, bw, narrowest) for bh in heights)
    group_tile, low_group_tile = (_tile(b * group_blocks * warps, h, w, bh, bw, narrowest) for bh in heights)
    block = {'LAST': last, 'VEC': vec, 'BW': bw, 'ACC': ACC}
    group_block = block | {'NC': at_once, 'CP': power, 'DENSE': last and power == c, 'UNIT': unit, 'num_warps': warps}
    block |= {'NC': nc, 'num_warps': 1}
    sizes = channels // vec, h, w
    # A compiler that has all registers loads everything first, and few warps fit; these numbers are enough.
    few_registers = {} if double else {'maxnreg': 128 if not last and w > 16 else 168}
    more_registers = {} if double else {'maxnreg': 168 if last else few_registers['maxnreg']}

    # Walks along rows or down, as long as they can be.
    if last:
        walk_block = {'NC': nc, 'T1': bw, 'T2': 1}
    elif w <= 16:
        walk_block = {'NC': 4, 'T1': 8, 'T2': 1} if w <= 8 else {'NC': 2, 'T1': 16, 'T2': 1}
    else:
        walk_block = {'NC': 1, 'T1': 32, 'T2': min((4, 2, 1), key=lambda n: _parts(w, 32 * n) * (8 * n + 2))}
    walk_block['num_warps'] = 1
    walk_blocks = _parts(channels, walk_block['NC'])
    walk = _walk(b * walk_blocks, h, w, walk_block['T1'] * walk_block['T2'], last)

    strips = strip_sums(shape, dtype, last)
    many = ELEMENTS // c
    strip_programs = _parts(all_groups * length, many)
    # Of small maps there are many, of large ones there is much to add up for each channel.
    small = h <= 16 and max(tile.count, group_tile.count) <= 32
    on_strips = {'LAST': last, 'BLOCK': ELEMENTS, 'AT_ONCE': 2 if small else 4, 'ACC': ACC, 'num_warps': 4}
    most = 32 if c <= 32 else MAX_GROUP_CHANNELS  # channels of a group
    lanes, in_groups = (128, {'BP': 8}) if small else (16, {'BP': 64})
    lanes = lanes if c <= lanes else MAX_GROUP_CHANNELS
    in_groups |= {'LANES': lanes, 'ACC': ACC, 'num_warps': 4}
    group_programs = _parts(all_groups, lanes // c)

    by_group, by_strip, by_tile = 9 * c * c + 3 * c, c * c + c, 9 * c
    cp = 4 if c <= 8 else 16
    rows_at_once = max(1, PLACES // (max(1, cp // 4) * cp))
    down = _parts(c, cp)
    chunks, programs = [], 0
    for blocks_, count, at_once, most_chunks in (
        (down * (_parts(9 * c, cp) + 2), all_groups, rows_at_once, CHUNKS),
        (down * down, all_groups * length, rows_at_once, STRIP_CHUNKS),
        (9 * down, all_groups * walk.count, rows_at_once * cp, CHUNKS),
    ):
        chunk = _parts(_parts(count, most_chunks), at_once) * at_once
        chunks.append((chunk, _parts(count, chunk)))
        programs += chunks[-1][1] * blocks_
    adding = {'BK': 64, 'BJ': 16, 'ACC': ACC}
    counts = [count for _, count in chunks]
    sums_size = sum(n * count for n, count in zip((by_group, by_strip, by_tile), counts, strict=True))

    kept_sizes = _kept_sizes(b, channels, h, w, groups)
    forward_sizes = [strips.row_size, strips.col_size, 2 * tile.count * total]
    backward_sizes = [
        all_groups * h * w,
        group_tile.count * all_groups,
        group_tile.count * total,
        tile.across * total * h,
        tile.down * total * w,
        total * length,
        total * length,
        total,
        total,
        9 * total,
        3 * total,
        9 * walk.count * total,
        sums_size,
        11 * c,
    ]
    dtypes_ = dtype, acc, acc, acc, acc, acc, dtype, dtype
    if last:
        group_walk = _walk(b * group_blocks, h, w, bw, last)
        output = Launch(
            triton_forward.output_last, (b * group_blocks * group_walk.count,), dtypes_,
            (*sizes, c, group_blocks, *group_walk.sizes),
            UNIT=unit, VEC=vec, NC=nc, CP=power, DENSE=power == c, T1=bw, ACC=ACC, num_warps=1, **few_registers,
        )  # fmt: skip
    else:
        output = Launch(
            triton_forward.output, (b * group_blocks * low_group_tile.count,), dtypes_,
            (*sizes, c, group_blocks, *low_group_tile.sizes), BH=low.rows, **group_block, **few_registers,
        )  # fmt: skip
    x, out, logits, kept, scratch, mix_, mix_bias_, scale_, shift_, filters_, filters_bias_ = range(11)
    means, gate, mean, rstd, k, weight2, taps, constant, stencil = _pieces(kept, kept_sizes)
    by_row, by_col, parts = _pieces(scratch, forward_sizes)
    forward = [
        (strips.launch, (x, by_row, by_col)),
        (
            Launch(
                triton_forward.gates, (strip_programs + _parts(9 * channels, ELEMENTS),),
                (acc, acc, mix, mix_bias, filters, shift, acc, acc, acc),
                (b, channels, h, w, c, strips.steps, strips.rows, strip_programs, *strides),
                HAS_MIX_BIAS=has_mix_bias, HAS_NORM_BIAS=has_shift, MOST=most, **on_strips,
            ),
            (by_row, by_col, mix_, mix_bias_, filters_, shift_, means, gate, stencil),
        ),
        (
            Launch(
                triton_forward.moments, (b * blocks * tile.count,), (dtype, acc, acc), (b, *sizes, blocks, *tile.sizes),
                BH=tile.rows, **block,
            ),
            (x, gate, parts),
        ),
        (
            Launch(
                triton_forward.norm, (group_programs,),
                (dtype, acc, acc, filters, filters_bias, scale, shift, acc, acc, acc, acc, acc, acc),
                (b, channels, h, w, c, tile.rows, *tile.sizes, *order),
                HAS_NORM_BIAS=has_shift, HAS_FILTERS_BIAS=has_filters_bias, LAST=last, **in_groups,
            ),
            (x, means, parts, filters_, filters_bias_, scale_, shift_, mean, rstd, k, weight2, taps, constant),
        ),
        (
            output,
            (x, gate, mean, k, constant, stencil, logits, out),
        ),
    ]  # fmt: skip
    grad, x, dx, logits, kept, scratch, found, mix_, _, scale_, shift_, filters_, filters_bias_ = range(13)
    means, gate, mean, rstd, k, weight2, taps, constant, stencil = _pieces(kept, kept_sizes)
    (
        dz, totals, centred, by_row, by_col, dlogits, dstrips, d0, slope, spread, numbers, tap_sums, sums, few
    ) = _pieces(scratch, backward_sizes)  # fmt: skip
    backward = [
        (
            Launch(
                triton_backward.logit_grad, (b * group_blocks * group_tile.count,),
                (dtype, dtype, dtype, acc, acc, acc, acc, acc),
                (b, *sizes, c, group_blocks, *group_tile.sizes), BH=tile.rows, **group_block, **few_registers,
            ),
            (grad, x, logits, gate, mean, dz, totals, centred),
        ),
        (
            Launch(
                triton_backward.norm_grad, (group_programs,),
                (acc, acc, acc, acc, filters, scale, shift, acc, acc, acc, acc),
                (b, channels, h, w, c, group_tile.count, *order), HAS_NORM_BIAS=has_shift, **in_groups,
            ),
            (totals, centred, rstd, weight2, filters_, scale_, shift_, d0, slope, spread, numbers),
        ),
        (
            Launch(
                triton_backward.gate_sums, (b * blocks * tile.count,), (dtype, *[acc] * 7),
                (b, *sizes, c, blocks, *tile.sizes), BH=tile.rows, **block,
            ),
            (x, dz, gate, mean, d0, slope, by_row, by_col),
        ),
        (
            Launch(
                triton_backward.strip_grad, (strip_programs,), (acc, acc, acc, acc, mix, acc, acc, acc),
                (b, channels, h, w, c, tile.across, tile.down), **on_strips,
            ),
            (by_row, by_col, gate, k, mix_, spread, dlogits, dstrips),
        ),
        (
            Launch(
                triton_backward.input_grad, (b * walk_blocks * walk.count,),
                (dtype, dtype, dtype, *[acc] * 9, dtype, acc),
                (b, *sizes, c, walk_blocks, *walk.sizes), UNIT=unit, SHARED=shared, LAST=last, VEC=vec, ACC=ACC,
                **walk_block, **more_registers,
            ),
            (grad, x, logits, dz, gate, mean, k, d0, slope, stencil, spread, dstrips, dx, tap_sums),
        ),
        (
            Launch(
                triton_parameters.parameter_sums, (programs,), (acc,) * 6,
                (b, channels, length, c, walk.count, *[chunk for chunk, _ in chunks], *counts),
                LAST=last, CP=cp, BK=rows_at_once, ACC=ACC, num_warps=4,
            ),
            (dlogits, means, taps, numbers, tap_sums, sums),
        ),
        (
            Launch(
                triton_parameters.parameter_grad, (1 + _parts(10 * c * c + 4 * c, adding['BJ']),),
                (acc, filters, filters_bias, shift, acc, parameters_dtype),
                (h, w, c, *counts, *strides),
                HAS_NORM_BIAS=has_shift, HAS_FILTERS_BIAS=has_filters_bias, MOST=most,
                num_warps=4, **adding,
            ),
            (sums, filters_, filters_bias_, shift_, few, found),
        ),
    ]  # fmt: skip
    return Plan(
        acc,
        parameters_dtype,
        all_groups * h * w,
        _size(kept_sizes),
        _size(forward_sizes),
        _size(backward_sizes),
        [c * c, c, c, c, 9 * c * c, c],
        Launches(*forward),
        Launches(*backward),
        tuple(launch for launch, _ in forward + backward),
    )


class Tile(NamedTuple):
    """Tiles of a map: rows of one, how many there are down and across, columns of one."""

    rows: int
    down: int
    across: int
    width: int

    @property
    def count(self) -> int:
        return self.down * self.across

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.down, self.across, self.width


def _tile(blocks: int, h: int, w: int, bh: int, bw: int, narrowest: int) -> Tile:
    """Tiles as wide as they can be if ``blocks`` of channels are to give enough programs."""
    down = _parts(h, bh)
    across = min(_parts(PROGRAMS, blocks * down), _parts(w, narrowest))
    width = _parts(_parts(w, across), bw) * bw
    return Tile(bh, down, _parts(w, width), width)


def _walk(blocks: int, h: int, w: int, wide: int, last: bool) -> Tile:
    """Tiles for walks along rows (else down) that are ``wide``; here the last number is how long one is."""
    size, other = (w, h) if last else (h, w)
    tiles = _parts(other, wide)
    length = _parts(size, min(_parts(PROGRAMS, blocks * tiles), _parts(size, SHORTEST)))
    many = _parts(size, length)
    return Tile(1, tiles, many, length) if last else Tile(1, many, tiles, length)


def _kept_sizes(b: int, channels: int, h: int, w: int, groups: int) -> list[int]:
    """Of strip means, gates, four numbers a channel, T, a constant a group, and the stencil."""
    total = b * channels
    return [total * (h + w), total * (h + w), total, total, total, total, 9 * total, b * groups, 9 * channels]


def _most_numbers(h: int, w: int) -> int:
    """A bound of the numbers a channel in any buffer of strips or sums by tiles."""
    return max((h // 2 + 1) * w + 10 * (h + 1), 9 * (h // 2 + 1) * (w // 4 + 1))


def _pieces(place: int, sizes: list[int]) -> list[tuple[int, int]]:
    """Of these sizes of one tensor, as ``Launches`` has them; each starts at an aligned place."""
    return [(place, start) for start in _starts([_aligned(size) for size in sizes])[:-1]]


def _size(sizes: list[int]) -> int:
    """Of a tensor with such pieces."""
    return sum(_aligned(size) for size in sizes)


def _aligned(size: int) -> int:
    return _parts(size, ALIGNED) * ALIGNED


def power_of_two(size: int) -> int:
    """The next one."""
    return 1 << (size - 1).bit_length()


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(sizes)]


def _parts(size: int, part: int) -> int:
    return -(-size // part)


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_contiguous() and not tensor.is_neg() else dense(tensor)


def _split(packed: Tensor, flat: list[Tensor | None], filters: Tensor, sizes: list[int]) -> list[Tensor | None]:
    """Each parameter's part of the packed gradients, with its dtype; the filters also with their memory format."""
    grads: list[Tensor | None] = list(packed.split_with_sizes(sizes))
    grads[0] = grads[0].view(flat[0].shape)
    grads[4] = grads[4].as_strided(filters.shape, filters.stride())
    return [None if t is None else g if g.dtype == t.dtype else g.to(t.dtype) for g, t in zip(grads, flat, strict=True)]
