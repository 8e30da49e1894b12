"""EMA in four launches forward and four backward, for CUDA. Paper: arXiv 2305.13563, section 3.

Only x, one map a group and strips are ever of use (g: a group of c channels; sums and means over its pixels):

- Branch 1 is normalised with one group a channel, so that its mean is beta: its weight w1 = softmax(beta).
- Branch 2 pooled is the filters times nine shifted sums of x, which follow from the sums of rows and columns; w2 is its
  softmax, k = w2 gamma rstd.
- z = (3x3 stencil F = sum_o w1_o W_o) x + sum_c k_c (y_c - mu_c) + constant, with y = x a_h a_w.

Forward: strips; gates and w2; moments of y; z and out. Backward, with dz = (sum_c G_c x_c) sigmoid'(z): dz; all sums of
dz times x (strips, nine shifts); what is not of full size; the gradient of x together with those of the parameters.
Moved at full size, if a group has many channels: 3 reads and 1 write forward; 5 reads and 1 write backward.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import gpu
from ..arithmetic import dense, dense_as, memory_format, sum_dtype
from . import lean, triton_backward, triton_forward
from .arguments import Options, Weights

MAX_GROUP_CHANNELS = 256
# Programs below which tiles are made shorter; about four for each multiprocessor of a large GPU.
MANY_PROGRAMS = 512
CHUNK = 1024  # numbers that a program has at once, unless it has several for each
WIDTHS = (128, 64, 32, 16)  # of tiles
HEIGHTS = (64, 32, 16)


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why these kernels cannot run on ``x``; empty if they can."""
    if reason := gpu.unsupported(x):
        return reason
    if x.numel() == 0:
        return 'the map is empty'
    b, channels, h, w = x.shape
    if channels // options.groups > MAX_GROUP_CHANNELS:
        return f'{channels // options.groups} channels a group, more than {MAX_GROUP_CHANNELS}'
    # Offsets within an image are 32 bits wide; so many images and blocks of channels fit in a grid.
    if channels * h * w >= 2**31 or b > 65535 or channels > 65535:
        return 'x is too large'
    return lean.unsupported(x, weights, options)


def kept_like(x: Tensor, options: Options) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor that forward keeps beside x."""
    b, channels, h, w = x.shape
    size = _kept_size(b, channels, h, w, options.groups)
    return [((b * options.groups * h * w,), x.dtype), ((size,), sum_dtype(x))]


def forward(x: Tensor, weights: Weights, options: Options) -> tuple[Tensor, tuple[Tensor, ...]]:
    """EMA of x (B, C, H, W); see the package for what is kept."""
    x = dense(x)
    last = memory_format(x) is torch.channels_last
    b, channels, h, w = x.shape
    c = channels // options.groups
    plan = make_plan(b, channels, h, w, c, last, x.element_size())
    mix, mix_bias, scale, shift, filters, filters_bias = (_dense(t) for layer in weights for t in layer)
    acc = sum_dtype(x)
    ACC = _LANGUAGE[acc]
    shape = (b, channels, h, w, plan.rows)

    out = torch.empty_like(x)
    logits = x.new_empty(b * options.groups * h * w)
    kept = x.new_empty(plan.kept, dtype=acc)
    scratch = x.new_empty(plan.forward_scratch, dtype=acc)
    tile = {'LAST': last, 'BW': plan.bw, 'CB': plan.cb, 'BH': plan.bh, 'ACC': ACC}
    with gpu.current(x):
        triton_forward.strip_sums[plan.tile_grid](x, scratch, *shape, **tile)
        triton_forward.gates[plan.gates_grid](
            x,
            kept,
            scratch,
            mix,
            _or(mix_bias, mix),
            _or(shift, mix),
            filters,
            _or(filters_bias, mix),
            *_filter_strides(filters),
            *shape,
            c=c,
            HAS_MIX_BIAS=mix_bias is not None,
            HAS_NORM_BIAS=shift is not None,
            HAS_FILTERS_BIAS=filters_bias is not None,
            LAST=last,
            BW=plan.bw,
            CP=plan.cp,
            IB=plan.gates_ib,
            IP=plan.gates_ip,
            BL=plan.gates_bl,
            ACC=ACC,
            num_warps=plan.gates_warps,
        )
        triton_forward.moments[plan.tile_grid](x, kept, scratch, *shape, c=c, **tile)
        triton_forward.output[plan.output_grid](
            x,
            out,
            logits,
            kept,
            scratch,
            scale,
            *shape,
            plan.output_share,
            c=c,
            UNIT=options.unit,
            LAST=last,
            TILE_BW=plan.bw,
            BH=plan.output_bh,
            BW=plan.output_bw,
            NG=plan.ng,
            NC=plan.nc,
            CP=plan.chunk_c,
            ACC=ACC,
        )
    return out, (logits, kept)


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of the six parameters, given that of the output."""
    x = dense(x)
    grad = dense_as(grad, x)
    last = memory_format(x) is torch.channels_last
    b, channels, h, w = x.shape
    c = channels // options.groups
    plan = make_plan(b, channels, h, w, c, last, x.element_size())
    flat = [t for layer in weights for t in layer]
    mix, _, scale, shift, filters, filters_bias = (_dense(t) for t in flat)
    acc = sum_dtype(x)
    ACC = _LANGUAGE[acc]
    shape = (b, channels, h, w, plan.rows)
    strides = _filter_strides(filters)
    logits, kept_ = kept

    dx = torch.empty_like(x)
    scratch = x.new_empty(plan.backward_scratch, dtype=acc)
    dtypes = {t.dtype for t in flat if t is not None}
    dparameters = x.new_empty(10 * c * c + 4 * c, dtype=dtypes.pop() if len(dtypes) == 1 else acc)
    common = {'c': c, 'LAST': last, 'BLOCK': plan.block, 'ACC': ACC}
    with gpu.current(x):
        triton_backward.logit_grad[plan.logit_grad_grid](
            grad, x, logits, scratch, *shape, UNIT=options.unit, TILE_BW=plan.bw, NG=plan.ng, CP=plan.chunk_c, **common
        )
        triton_backward.tile_sums[plan.tile_grid](
            x, kept_, scratch, *shape, BH=plan.sums_bh, BW=plan.bw, CB=plan.cb, **plan.sums_launch, **common
        )
        triton_backward.group_grad[(b * options.groups, plan.shares)](
            kept_,
            scratch,
            mix,
            scale,
            _or(shift, mix),
            filters,
            _or(filters_bias, mix),
            *strides,
            *shape,
            HAS_NORM_BIAS=shift is not None,
            HAS_FILTERS_BIAS=filters_bias is not None,
            BW=plan.bw,
            CP=plan.cp,
            IB=plan.grad_ib,
            OB=plan.gates_ib,
            BL=plan.grad_bl,
            **common,
        )
        triton_backward.input_grad[plan.input_grad_grid](
            grad,
            x,
            logits,
            kept_,
            scratch,
            dx,
            dparameters,
            _or(shift, mix),
            *strides,
            *shape,
            HAS_NORM_BIAS=shift is not None,
            UNIT=options.unit,
            TILE_BW=plan.bw,
            SHARES=plan.shares,
            CP=plan.cp,
            RB=PARAMETER_BLOCK,
            BH=plan.input_bh,
            BW=plan.input_bw,
            CB=plan.cb,
            **common,
        )
    return dx, _split(dparameters, flat, filters)


class Plan(NamedTuple):
    """Sizes of blocks, grids and buffers; ``triton_common`` says what a tile and a chunk are."""

    cp: int  # channels of a group, as a power of two
    bh: int  # a chunk of the tiles: rows,
    bw: int  # columns
    cb: int  # and channels
    rows: int  # of a tile
    tile_grid: tuple[int, int, int]
    gates_ib: int
    gates_ip: int
    gates_bl: int
    gates_warps: int
    gates_grid: tuple[int, int, int]
    chunk_c: int  # channels of a group that a program has at once
    ng: int  # groups that it has
    nc: int  # channels of all of them, as a power of two
    output_bh: int
    output_bw: int
    output_share: int  # chunks of a program
    output_grid: tuple[int, int, int]
    block: int  # pixels at once where rows and columns do not matter
    logit_grad_grid: tuple[int, int, int]
    sums_bh: int
    sums_launch: dict[str, int | None]
    grad_ib: int
    grad_bl: int
    shares: int  # programs a group in the launch of all that is not of full size
    input_bh: int
    input_bw: int
    input_grad_grid: tuple[int]
    kept: int  # numbers in the buffers
    forward_scratch: int
    backward_scratch: int


# Parameters whose gradients one program makes.
PARAMETER_BLOCK = 32


@lru_cache(maxsize=1024)
def make_plan(b: int, channels: int, h: int, w: int, c: int, last: bool, size: int) -> Plan:
    """The plan for a map of (b, channels, h, w) with c channels a group and ``size`` bytes a number."""
    cdiv, power = triton.cdiv, triton.next_power_of_2
    groups = channels // c
    cp = power(c)

    # Channels-last: 64 bytes of neighbouring channels. Contiguous: one channel, and all the width that wastes little.
    cb = min(power(channels), 64 // size) if last else 1
    bw = _width(w, tuple(width for width in WIDTHS if width <= 32) if last else WIDTHS)
    tall = power(h)
    bh = _clamp(CHUNK // (bw * cb), 1, min(tall, 64))
    sums_bh = _clamp(CHUNK // 2 // (bw * cb), 1, min(tall, 64))
    across, blocks = cdiv(w, bw), cdiv(channels, cb)
    enough = (r for r in HEIGHTS if r >= bh and b * blocks * across * cdiv(h, r) >= MANY_PROGRAMS)
    rows = next(enough, max(HEIGHTS[-1], bh))
    rows = cdiv(cdiv(h, cdiv(h, rows)), bh) * bh  # of equal height
    down = cdiv(h, rows)

    gates_ib = min(cp, 16)
    gates_ip = _clamp(256 // cp, 1, cp)
    gates_bl = _clamp(8192 // gates_ib**2, 32, 128)
    grad_ib = _clamp(64 // cp, 1, cp)
    grad_bl = _clamp(4096 // (gates_ib * grad_ib), 32, 256)
    shares = cdiv(c, grad_ib)

    chunk_c = min(cp, 32) if last else 1
    ng = _clamp(32 // chunk_c, 1, power(groups)) if last else 1
    group_blocks = cdiv(groups, ng)
    output_bw = min(bw, 16) if last else bw
    for chunk in (CHUNK, CHUNK // 2, CHUNK // 4):
        output_bh = _clamp(chunk // (ng * chunk_c * output_bw), 1, tall)
        output_chunks = cdiv(h, output_bh) * cdiv(w, output_bw)
        if output_chunks * group_blocks * b >= MANY_PROGRAMS:
            break
    # What every program of `output` does first should not weigh much.
    output_share = _clamp(output_chunks * group_blocks * b // (2 * MANY_PROGRAMS), 1, 16)
    block = 64 if last else (CHUNK if b * groups * h * w >= CHUNK * MANY_PROGRAMS else CHUNK // 4)
    input_bw = min(bw, 16) if last else bw
    input_bh = _clamp(CHUNK // 2 // (input_bw * cb), 1, tall)
    chunks = cdiv(h, input_bh) * cdiv(w, input_bw) * blocks * b

    total, strips, all_groups = b * channels, b * channels * (h + w), b * groups
    strip_sums = total * (across * h + down * w)
    return Plan(
        cp=cp,
        bh=bh,
        bw=bw,
        cb=cb,
        rows=rows,
        tile_grid=(across * down, blocks, b),
        gates_ib=gates_ib,
        gates_ip=gates_ip,
        gates_bl=gates_bl,
        gates_warps=8 if cp > 8 else 4,
        gates_grid=(all_groups, cdiv(h + w, gates_bl) + 1, cdiv(c, gates_ib)),
        chunk_c=chunk_c,
        ng=ng,
        nc=power(ng * c),
        output_bh=output_bh,
        output_bw=output_bw,
        output_share=output_share,
        output_grid=(cdiv(output_chunks, output_share), group_blocks, b),
        block=block,
        logit_grad_grid=(cdiv(h * w, block), group_blocks, b),
        sums_bh=sums_bh,
        # Sixteen warps fit on a multiprocessor if a thread has 128 registers; a few more put aside cost less.
        sums_launch={
            'num_warps': 8 if sums_bh * bw * cb > 512 else 4,
            'maxnreg': 128 if size == 2 or (size == 4 and not last) else None,
        },
        grad_ib=grad_ib,
        grad_bl=grad_bl,
        shares=shares,
        input_bh=input_bh,
        input_bw=input_bw,
        input_grad_grid=(cdiv(10 * c * c + 4 * c, PARAMETER_BLOCK) + chunks,),
        kept=_kept_size(b, channels, h, w, groups),
        forward_scratch=max(strip_sums, 2 * total * across * down),
        backward_scratch=(
            all_groups * (h * w + cdiv(h * w, block) + c * c + 13 * c + shares * c)
            + 3 * strip_sums
            + 10 * total * across * down
            + strips
            + 6 * total
        ),
    )


def _kept_size(b: int, channels: int, h: int, w: int, groups: int) -> int:
    """Numbers in the buffer that ``triton_common.kept`` lays out."""
    return b * channels * (2 * (h + w) + 13) + b * groups + 9 * (channels // groups)


def _width(w: int, choices: tuple[int, ...]) -> int:
    """The width whose multiples waste least; a narrow block costs about as much as 8 more columns."""
    return min(choices, key=lambda width: triton.cdiv(w, width) * (width + 8))


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def _dense(tensor: Tensor | None) -> Tensor | None:
    """A parameter, which may be missing."""
    return None if tensor is None else dense(tensor)


def _filter_strides(filters: Tensor) -> tuple[int, int, int]:
    """From one output channel, input channel and tap to the next; in both memory formats a row is three taps."""
    return filters.stride(0), filters.stride(1), filters.stride(3)


def _or(tensor: Tensor | None, instead: Tensor) -> Tensor:
    """A pointer that is not read stands for a missing bias."""
    return instead if tensor is None else tensor


def _split(packed: Tensor, flat: list[Tensor | None], filters: Tensor) -> list[Tensor | None]:
    """Each parameter's part of the packed gradients, with its dtype; the filters also with their memory format."""
    c = filters.shape[0]
    sizes = (c * c, c, c, c, 9 * c * c, c)
    grads: list[Tensor | None] = []
    start = 0
    for parameter, size in zip(flat, sizes, strict=True):
        if parameter is None:
            grads.append(None)
        else:
            strides = filters.stride() if size == 9 * c * c else (c, 1, 1, 1)[: parameter.ndim]
            if parameter.ndim == 1:
                strides = (1,)
            grad = packed.as_strided(parameter.shape, strides, start)
            grads.append(grad if grad.dtype == parameter.dtype else grad.to(parameter.dtype))
        start += size
    return grads


_LANGUAGE = {torch.float32: tl.float32, torch.float64: tl.float64}
