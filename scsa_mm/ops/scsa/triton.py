"""SCSA on NVIDIA GPUs in few launches: five forward, six backward, or seven where the gates are not kept.

Paper: arXiv 2407.05128, section 3. The algebra is that of ``lean``; forward reads x three times and writes once,
backward reads x once and the gradient twice and writes once, beside sums over the pool's windows (2/7 of a map, written
and read). Shapes, blocks and grids are worked out once for a shape and remembered.
"""

import functools
import math
from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from .. import gpu
from ..arithmetic import dense, dense_as, memory_format, sum_dtype
from . import triton_backward, triton_forward
from .arguments import Options, Weights, flatten, misfit, unusual, window

Kept = tuple[Tensor, ...]

LARGEST = 2**31  # of what is counted in int32: elements of one image, and of a buffer of strips or pooled maps
LONGEST_KERNEL = 63  # its taps are written out in the kernel
KEPT = 10  # gates are kept if all that is kept is no more than one of so many elements of x; else computed again

# What the sizes of blocks aim at, on a GPU of about 130 multiprocessors.
TILE = 2048  # elements of a tile, 16 for each thread
SMALL_TILE = 512
PROGRAMS = 2112


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why this cannot be run; empty if it can."""
    if reason := gpu.unsupported(x) or unusual(options) or misfit(x, weights, options):
        return reason
    longest = max(conv.weight.shape[2] for conv in weights.convs)
    if longest > LONGEST_KERNEL:
        return f'a kernel of {longest}'
    b, c, h, w = x.shape
    kh, kw = window(h, w, options)
    # For a column's sum at most 16 summands, for a row's one from every 7 columns at most.
    strip_sums, pooled = h * (w // 7 + 1) + 16 * w, (h // kh) * (w // kw)
    if c * h * w >= LARGEST or b * c * max(strip_sums, pooled) >= LARGEST:
        return 'x is too large'
    return ''


def kept_like(x: Tensor, options: Options) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor that forward keeps beside x."""
    b, c, h, w = x.shape
    kh, kw = window(h, w, options)
    n = (h // kh) * (w // kw)
    sizes = [sum(_kept_sizes(b, c, h, w, n))]
    if _keeps_gates(c, h, w, n):
        sizes.append(b * c * (h + w))
    return [((size,), sum_dtype(x)) for size in sizes]


def forward(x: Tensor, weights: Weights, options: Options) -> tuple[Tensor, Kept]:
    """SCSA of x (B, C, H, W), and what backward needs beside x.

    That is one tensor of small things: strip means, pooled map, three numbers a channel, statistics of the norms; and
    the gates of rows and columns if both together are small beside x.
    """
    x = dense(x)
    plan = _plan_of(x, weights, options)
    convs = _conv_arguments(weights)
    b, c, h, w = x.shape
    with gpu.current(x):
        out = torch.empty_like(x)
        kept, gate = (torch.empty(size, dtype=plan.dtype, device=x.device) for size in (plan.kept, plan.strips))
        means, pooled, logits, stats, norm_stats = kept.split_with_sizes(plan.kept_sizes)
        by_row, by_col = torch.empty(sum(plan.sum_sizes), dtype=plan.dtype, device=x.device).split_with_sizes(
            plan.sum_sizes
        )
        tile = plan.strip_tile
        triton_forward.strips[tile.grid](
            x, by_row, by_col, b, c, h, plan.wv, tile.chunk, tile.blocks, tile.rows, tile.steps,
            **plan.layout, **tile.block,
        )  # fmt: skip
        triton_forward.gates[(8 * b,)](
            by_row, by_col, means, gate, stats, *convs, *weights.norm_h, *weights.norm_w, b, c, h, w, tile.rows,
            tile.steps, AGAIN=False, UNIT=options.unit, ACC=plan.acc, **plan.kernels, **plan.gate_block,
        )  # fmt: skip
        tile = plan.pool_tile
        triton_forward.pool[tile.grid](
            x, gate, pooled, b, c, h, plan.wv, *plan.windows, tile.blocks, tile.steps, **plan.layout, **tile.block
        )
        triton_forward.attend[plan.attention_grid](
            pooled, norm_stats, logits, *weights.norm, *_scales(weights), b, c, *plan.attention, BS=plan.stats_block,
            UNIT=options.unit, **plan.biases, **plan.attention_block,
        )  # fmt: skip
        tile = plan.scale_tile
        triton_forward.scale[tile.grid](
            x, gate, logits, out, b, c, h, plan.wv, tile.blocks, tile.rows, tile.steps, **plan.layout, **tile.block
        )
    return out, (kept, gate) if plan.keeps_gates else (kept,)


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: Kept
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of all weights."""
    x = dense(x)
    plan = _plan_of(x, weights, options)
    convs = _conv_arguments(weights)
    grad = dense_as(grad, x)
    b, c, h, w = x.shape
    with gpu.current(x):
        grad_x = torch.empty_like(x)
        means, pooled, logits, stats, norm_stats = kept[0].split_with_sizes(plan.kept_sizes)
        along_h, along_w = torch.empty(sum(plan.window_sizes), dtype=x.dtype, device=x.device).split_with_sizes(
            plan.window_sizes
        )
        by_row, by_col, grad_gate, grad_y, offset, spread, grad_z, grad_mean, sums = torch.empty(
            sum(plan.backward_sizes), dtype=plan.dtype, device=x.device
        ).split_with_sizes(plan.backward_sizes)
        if plan.keeps_gates:
            gate = kept[1]
        else:
            gate = torch.empty(plan.strips, dtype=plan.dtype, device=x.device)
            triton_forward.gates[(8 * b,)](
                by_row, by_col, means, gate, stats, *convs, *weights.norm_h, *weights.norm_w, b, c, h, w, 0, 0,
                AGAIN=True, UNIT=options.unit, ACC=plan.acc, **plan.kernels, **plan.gate_block,
            )  # fmt: skip
        tile = plan.grad_tile
        triton_backward.grad_sums[tile.grid](
            x, grad, gate, by_row, by_col, grad_gate, along_h, along_w, b, c, h, plan.wv, *plan.windows, plan.cells,
            tile.chunk, tile.blocks, tile.rows, tile.steps, **plan.layout, **tile.block,
        )  # fmt: skip
        triton_backward.attend_backward[plan.attention_grid](
            pooled, norm_stats, logits, grad_gate, grad_y, offset, sums, *weights.norm, *_scales(weights), b, c,
            *plan.attention, tile.rows * tile.steps, plan.parameters, plan.norms,
            UNIT=options.unit, **plan.biases, **plan.attention_block,
        )  # fmt: skip
        triton_backward.grad_gates[plan.window_tile.grid](
            pooled, norm_stats, grad_y, offset, weights.norm.weight, sums, gate, logits, by_row, by_col, along_h,
            along_w, spread, grad_z, b, c, h, w, *plan.windows, plan.window_tile.blocks, tile.rows, tile.steps,
            plan.parameters, plan.norms, CHANNELS_LAST=plan.layout['CHANNELS_LAST'], UNIT=options.unit, ACC=plan.acc,
            **plan.window_tile.block,
        )  # fmt: skip
        triton_backward.gates_backward[(8 * b,)](
            means, stats, grad_z, grad_mean, sums, *convs, weights.norm_h.weight, weights.norm_w.weight, b, c, h, w,
            plan.parameters, ACC=plan.acc, **plan.kernels, **plan.gate_block,
        )  # fmt: skip
        tile = plan.input_tile
        triton_backward.grad_input[tile.grid](
            grad, gate, logits, spread, grad_mean, grad_x, b, c, h, plan.wv, *plan.input_windows, tile.chunk,
            tile.blocks, tile.rows, tile.steps, **plan.layout, **tile.block,
        )  # fmt: skip
        flat = flatten(weights)
        present = [t for t in flat if t is not None]
        # One buffer for all; views of it are what autograd then keeps as .grad.
        same = all(t.dtype == present[0].dtype for t in present)
        total = torch.empty(plan.parameters, dtype=present[0].dtype if same else plan.dtype, device=x.device)
        triton_backward.add_images[(-(-plan.parameters // SMALL_TILE),)](
            sums, total, b, plan.norms, plan.parameters, BLOCK=SMALL_TILE, ACC=plan.acc
        )
    grads = torch._C._nn.unflatten_dense_tensors(total, present)
    if not same:
        grads = [g.to(t.dtype) for g, t in zip(grads, present, strict=True)]
    grads = iter(grads)
    return grad_x, [None if t is None else next(grads) for t in flat]


class Tile(NamedTuple):
    """A kernel over feature maps: its programs, (image, block of channels, group of rows, step of columns)."""

    grid: tuple[int]
    blocks: int
    rows: int
    steps: int
    chunk: int  # rows, or rows of cells, that a program takes one after the other
    block: dict[str, int]


class Plan(NamedTuple):
    """How a shape is worked on; what ends in ``_sizes`` says how one buffer is cut."""

    dtype: torch.dtype
    acc: tl.dtype
    layout: dict[str, object]
    wv: int
    kernels: dict[str, int]
    biases: dict[str, bool]
    windows: tuple[int, ...]
    cells: int
    input_windows: tuple[int, ...]
    attention: tuple[int, int, int]  # positions, channels of a head, programs of a head
    attention_grid: tuple[int]
    attention_block: dict[str, object]
    stats_block: int
    gate_block: dict[str, int]
    strip_tile: Tile
    pool_tile: Tile
    scale_tile: Tile
    grad_tile: Tile
    window_tile: Tile
    input_tile: Tile
    strips: int
    kept: int
    kept_sizes: tuple[int, ...]
    sum_sizes: tuple[int, ...]
    window_sizes: tuple[int, ...]
    backward_sizes: tuple[int, ...]
    parameters: int
    norms: int  # where the norms begin among the parameters
    keeps_gates: bool


def _kept_sizes(b: int, c: int, h: int, w: int, n: int) -> tuple[int, ...]:
    """Of strip means, pooled map, three numbers a channel, statistics of the norms."""
    return b * c * (h + w), b * c * n, 3 * b * c, 16 * b, 2 * b


def _keeps_gates(c: int, h: int, w: int, n: int) -> bool:
    return KEPT * (sum(_kept_sizes(1, c, h, w, n)) + c * (h + w)) <= c * h * w


def _plan_of(x: Tensor, weights: Weights, options: Options) -> Plan:
    return _plan(
        tuple(x.shape),
        x.dtype,
        memory_format(x) == torch.channels_last,
        window(x.shape[2], x.shape[3], options),
        tuple(conv.weight.shape[2] for conv in weights.convs),
        tuple(layer.bias is not None for layer in (weights.q, weights.k, weights.v)),
        options.num_heads,
    )


@functools.lru_cache(maxsize=4096)
def _plan(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    channels_last: bool,
    kernel: tuple[int, int],
    lengths: tuple[int, ...],
    biases: tuple[bool, ...],
    heads: int,
) -> Plan:
    b, c, h, w = shape
    double = dtype == torch.float64
    size = dtype.itemsize
    acc = tl.float64 if double else tl.float32
    # As many elements as a load can take, if rows stay aligned to them.
    vec = 1 if channels_last else math.gcd(w, max(16 // size, 1))
    kh, kw = kernel
    nh, nw = h // kh, w // kw
    n, d = nh * nw, c // heads

    ph, ch, cells_h = _cells(h, kh, 8 if channels_last else 16)
    pw, cw, cells_w = _cells(w, kw, 16 if channels_last else 64)
    cell = {'KH': _power(ch), 'KW': _power(cw)}
    in_cell = cell['KH'] * cell['KW']
    line = min(_power(c), 128 // size)  # channels of one row of memory in a channels-last map

    # Tiles of plain rows and columns.
    if channels_last:
        bw = min(_power(w), 16)
        strip_block = _fill(line, bw, h, TILE)
        scale_block = _fill(line, bw, h, 2 * TILE)
        input_rows = 8
        input_block = {'BC': line, 'BW': min(_power(w), 8)}
    else:
        bw = _width(w, 32, 512)
        strip_block = scale_block = _fill(1, bw, h, TILE)
        strip_block['BC'] = min(_power(c), max(1, SMALL_TILE // (bw * strip_block['BH'])))
        input_rows = 8
        bw = _width(w, 32, 256)
        input_block = {'BC': min(_power(c), max(1, SMALL_TILE // (8 * bw))), 'BW': bw}
    strip_tile = _tile(b, c, h, w, strip_block, strip_block['BH'], strip_block['BW'], PROGRAMS)
    scale_tile = _tile(b, c, h, w, scale_block, scale_block['BH'], scale_block['BW'], None)
    p_in, c_in, cells_in = _cells(h, kh, input_rows)
    input_block['BH'] = _power(c_in)
    input_tile = _tile(b, c, cells_in, w, input_block, 1, input_block['BW'], 4 * PROGRAMS)

    # Tiles of cells. In a contiguous map their columns are taken one after the other.
    def of_cells(number: int, most: int) -> dict[str, int]:
        if channels_last:
            bq = min(_power(number), max(1, 128 // in_cell), most)
            bc = min(_power(c), 32, max(1, 2 * TILE // (in_cell * bq)))
            return cell | {'BQ': bq, 'BC': bc, 'BW': bq * cell['KW']}
        bq = _width(number, 8, min(most, max(1, TILE // in_cell)))
        bw = _power(bq * cw)
        return cell | {'BQ': bq, 'BC': min(_power(c), max(1, SMALL_TILE // (cell['KH'] * bw))), 'BW': bw}

    pool_block, grad_block = of_cells(nw, 1 if pw > 1 else TILE), of_cells(cells_w, TILE)
    pool_tile = _tile(b, c, nh, nw, pool_block, 1, pool_block['BQ'], None)
    grad_tile = _tile(b, c, cells_h, cells_w, grad_block, 1, grad_block['BQ'], PROGRAMS)

    bq = min(_power(max(nh * ph, nw * pw)), 4 if channels_last else 16)
    bc = line if channels_last else 1
    bl = min(_power(max(h, w)), max(1, TILE // 2 // (bc * bq)))
    window_block = {'BS': min(_power(c), 1024), 'BC': bc, 'BN': min(_power(n), TILE // bc), 'BQ': bq, 'BL': bl}
    blocks, chunks = -(-c // bc), -(-h // bl) + -(-w // bl)
    window_tile = Tile((b * blocks * chunks,), blocks, 0, 0, 0, _with_warps(window_block, bc * bq * bl, 256))

    bl = min(_power(max(h, w)), 512)
    gate_block = {'BC': min(_power(c // 4), max(1, TILE // bl)), 'BL': bl}
    # A dot product has at least 16 of everything.
    be, bn = (max(16, min(most, _power(size))) for most, size in ((64, d), (32, n)))
    per_head = -(-d // 16)

    plane = b * c
    total = sum(lengths) * (c // 4) + c
    kept_sizes = _kept_sizes(b, c, h, w, n)
    parameters = total + (9 + sum(biases)) * c
    return Plan(
        dtype=sum_dtype(torch.empty(0, dtype=dtype)),
        acc=acc,
        layout={'VEC': vec, 'CHANNELS_LAST': channels_last, 'ACC': acc},
        wv=w // vec,
        kernels={f'K{i}': k for i, k in enumerate(lengths)} | {'KMAX': max(lengths)},
        biases=dict(zip(('BIAS_Q', 'BIAS_K', 'BIAS_V'), biases, strict=True)),
        windows=(kh, kw, nh, nw, ph, pw, ch, cw),
        cells=cells_h,
        input_windows=(kh, kw, nh, nw, p_in, c_in, cells_in),
        attention=(n, d, per_head),
        attention_grid=(b * heads * per_head,),
        attention_block={'BC': 16, 'BE': be, 'BN': bn, 'ACC': acc, 'num_warps': 8},
        stats_block=min(_power(c * n), 4096),
        gate_block=_with_warps(gate_block, gate_block['BC'] * bl, 256),
        strip_tile=strip_tile,
        pool_tile=pool_tile,
        scale_tile=scale_tile,
        grad_tile=grad_tile,
        window_tile=window_tile,
        input_tile=input_tile,
        strips=plane * (h + w),
        kept=sum(kept_sizes),
        kept_sizes=kept_sizes,
        sum_sizes=_aligned(strip_tile.steps * plane * h, strip_tile.rows * plane * w),
        window_sizes=_aligned(plane * h * nw * pw, plane * nh * ph * w),
        backward_sizes=_aligned(
            grad_tile.steps * plane * h,
            grad_tile.rows * plane * w,
            grad_tile.rows * grad_tile.steps * plane,
            plane * n,
            plane,
            plane * n,
            plane * (h + w),
            plane * (h + w),
            2 * b * parameters,
        ),
        parameters=parameters,
        norms=total,
        keeps_gates=_keeps_gates(c, h, w, n),
    )


def _cells(length: int, window: int, most: int) -> tuple[int, int, int]:
    """Cells of a window along a side, their length, and their number on the whole map."""
    size = -(-window // -(-window // most))
    parts = -(-window // size)
    whole = length // window
    return parts, size, whole * parts + -(-(length - whole * window) // size)


def _tile(
    b: int, c: int, rows: int, columns: int, block: dict[str, int], height: int, width: int, programs: int | None
) -> Tile:
    """Programs for a map of so many rows and columns; without ``programs``, one for each tile."""
    blocks, steps, tiles = -(-c // block['BC']), -(-columns // width), -(-rows // height)
    groups = tiles if programs is None else max(1, min(tiles, 16, -(-programs // (b * blocks * steps))))
    chunk = -(-tiles // groups)
    groups = -(-tiles // chunk)
    block = _with_warps(block, block['BC'] * block['BW'] * block.get('BH', block.get('KH', 1)), 512)
    return Tile((b * blocks * groups * steps,), blocks, groups, steps, chunk * height, block)


def _with_warps(block: dict[str, int], elements: int, per_warp: int) -> dict[str, int]:
    return block | {'num_warps': max(1, min(8, elements // per_warp))}


def _fill(channels: int, width: int, height: int, elements: int) -> dict[str, int]:
    return {'BC': channels, 'BH': min(_power(height), max(1, elements // (channels * width))), 'BW': width}


def _width(n: int, least: int, most: int) -> int:
    """The largest power of two that fills up n by at most 15 %, else the one that fills up least."""
    least = min(least, most, _power(n))
    candidates = [least << i for i in range(32) if least << i <= min(most, _power(n))]
    filled = {size: -(-n // size) * size for size in candidates}
    good = [size for size in candidates if filled[size] <= 1.15 * n]
    return max(good) if good else min(candidates, key=lambda size: (filled[size], -size))


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << (n - 1).bit_length()


def _aligned(*sizes: int) -> tuple[int, ...]:
    """Each part of a buffer begins at a multiple of 16 bytes, whatever the shape: Triton compiles for either."""
    return tuple(-(-size // 16) * 16 for size in sizes)


def _conv_arguments(weights: Weights) -> tuple[Tensor, ...]:
    return (*(conv.weight.contiguous() for conv in weights.convs), *(conv.bias for conv in weights.convs))


def _scales(weights: Weights) -> list[Tensor]:
    """Weights and biases of q, k and v; a missing bias is not read, so that any tensor will do."""
    return [t for layer in weights[4:] for t in (layer.weight, layer.weight if layer.bias is None else layer.bias)]
