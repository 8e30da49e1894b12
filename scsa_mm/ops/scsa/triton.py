"""SCSA on NVIDIA GPUs. Paper: arXiv 2407.05128, section 3.

The algebra is that of ``lean``: forward reads x three times and writes once, backward reads x once and the gradient
twice and writes once, beside means over the pool's windows (2/7 of a map, written and read). Between these passes there
are only strips, pooled maps and products of channels, each worked on by many small programs.
"""

import functools
from operator import itemgetter

import torch
from torch import Tensor

from .. import gpu
from ..arithmetic import dense, dense_as, memory_format, sum_dtype
from ..launch import compile_together
from .arguments import Options, Weights, misfit, unusual, window
from .triton_plan import WEIGHTS, Plan, kept_size, make_plan

Kept = tuple[Tensor, ...]

LARGEST = 2**31  # of what is counted in int32: elements of one image, and of a buffer of strips or pooled maps
LONGEST_KERNEL = 63  # its taps are written out in the kernel
BLOCK = 2**12  # elements that the last program of a pass may go beyond them
LONGEST = 2**22  # rows or columns, whose windows are found in float32
IMAGES = 65535  # along the second axis of a grid

_ordered = itemgetter(0, 2, 4, 6, 1, 3, 5, 7, *range(8, len(WEIGHTS)))  # as ``triton_plan.WEIGHTS``


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why this cannot be run; empty if it can."""
    if reason := gpu.unsupported(x) or unusual(options) or misfit(x, weights, options):
        return reason
    longest = max(weight.shape[2] for weight in weights[:8:2])
    if longest > LONGEST_KERNEL:
        return f'a kernel of {longest}'
    b, c, h, w = x.shape
    kh, kw = window(h, w, options)
    # For a column's sum a summand of every 7 rows at most, for a row's one of every 7 columns. Of a convolution's
    # gradient one of every 8 positions both ways; at most 12 numbers a channel for the other parameters.
    strip_sums, pooled = h * (w // 7 + 1) + w * (h // 7 + 1), (h // kh) * (w // kw)
    taps = 2 * -(-max(h, w) // 8) * (sum(weight.shape[2] for weight in weights[:8:2]) // 4 + 1)
    most = max(strip_sums, pooled, h + w, c // options.num_heads, taps, 12)
    if c * h * w >= LARGEST - BLOCK or b * c * most >= LARGEST or b > IMAGES or max(h, w) >= LONGEST:
        return 'x is too large'
    return ''


def kept_like(x: Tensor, options: Options) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor that forward keeps beside x."""
    b, c, h, w = x.shape
    kh, kw = window(h, w, options)
    return [((kept_size(b, c, h, w, (h // kh) * (w // kw)),), sum_dtype(x))]


def forward(x: Tensor, weights: Weights, options: Options) -> tuple[Tensor, Kept]:
    """SCSA of x (B, C, H, W), and what backward needs beside x.

    That is one tensor of small things: strip means, pooled map, four numbers a channel, statistics of the norms.
    """
    x = dense(x)
    with gpu.current(x):
        plan, tensors = _prepared(x, weights, options)
        out = torch.empty_like(x)
        scratch = x.new_empty(plan.scratch, dtype=plan.acc)
        kept = x.new_empty(plan.kept, dtype=plan.acc)
        plan.forward(x, out, scratch, kept, *tensors)
    return out, (kept,)


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: Kept
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of all weights."""
    x = dense(x)
    grad = dense_as(grad, x)
    with gpu.current(x):
        plan, tensors = _prepared(x, weights, options)
        grad_x = torch.empty_like(x)
        scratch = x.new_empty(plan.backward_scratch, dtype=plan.acc)
        along = x.new_empty(plan.along)
        # One buffer for all; views of it are what autograd then keeps as .grad.
        total = x.new_empty(sum(plan.gradients), dtype=plan.same or plan.acc)
        plan.backward(grad, x, grad_x, scratch, kept[0], along, total, *tensors)
    return grad_x, _parts(total, plan, weights)


def _parts(total: Tensor, plan: Plan, weights: Weights) -> list[Tensor | None]:
    """The gradients of all parameters, as they lie one after the other in ``total``."""
    # Not tracked as views, which takes the host longer.
    parts: list[Tensor | None] = list(total.unsafe_split_with_sizes(plan.gradients))
    for i, shape in plan.shapes:
        parts[i] = parts[i].view(*shape)
    for i in range(15, len(weights), 2):  # of q, k and v
        if weights[i] is None:
            parts.insert(i, None)
    if plan.same is None:
        parts = [None if g is None else g.to(t.dtype) for g, t in zip(parts, weights, strict=True)]
    return parts


def _prepared(x: Tensor, weights: Weights, options: Options) -> tuple[Plan, list[Tensor]]:
    """The plan, and the weights as its launches get them."""
    # A missing bias is not read, so that any tensor will do.
    tensors = [(weights.q if t is None else t).contiguous() for t in _ordered(weights)]
    plan = _compiled_plan(
        x.device,
        x.shape,
        x.dtype,
        memory_format(x) is torch.channels_last,
        options,
        tuple([t.shape[2] for t in tensors[:4]]),
        (weights.q_bias is not None, weights.k_bias is not None, weights.v_bias is not None),
        tuple([t.dtype for t in tensors]),
    )
    return plan, tensors


@functools.lru_cache(maxsize=4096)
def _compiled_plan(
    device: torch.device,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    last: bool,
    options: Options,
    lengths: tuple[int, ...],
    biases: tuple[bool, ...],
    dtypes: tuple[torch.dtype, ...],
) -> Plan:
    """Compiled for the device, which is the current one."""
    kernel = window(shape[2], shape[3], options)
    plan = make_plan(shape, dtype, last, kernel, lengths, biases, options.num_heads, options.unit, dtypes)
    compile_together(plan.launches)
    return plan
