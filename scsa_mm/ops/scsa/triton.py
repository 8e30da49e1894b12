"""SCSA on NVIDIA GPUs. Paper: arXiv 2407.05128, section 3.

The algebra is that of ``lean``: forward reads x three times and writes once, backward reads x once and the gradient
twice and writes once, beside means over the pool's windows (2/7 of a map, written and read). Between these passes there
are only strips, pooled maps and products of channels, each worked on by many small programs.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from .. import gpu
from ..arithmetic import dense, dense_as, memory_format, sum_dtype
from ..launch import compile_together
from .arguments import Options, Weights, flatten, misfit, unusual, window
from .triton_plan import Plan, kept_size, make_plan

Kept = tuple[Tensor, ...]

LARGEST = 2**31  # of what is counted in int32: elements of one image, and of a buffer of strips or pooled maps
LONGEST_KERNEL = 63  # its taps are written out in the kernel
IMAGES = 65535  # along the second axis of a grid


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why this cannot be run; empty if it can."""
    if reason := gpu.unsupported(x) or unusual(options) or misfit(x, weights, options):
        return reason
    longest = max(conv.weight.shape[2] for conv in weights.convs)
    if longest > LONGEST_KERNEL:
        return f'a kernel of {longest}'
    b, c, h, w = x.shape
    kh, kw = window(h, w, options)
    # For a column's sum a summand of every 7 rows at most, for a row's one of every 7 columns.
    strip_sums, pooled = h * (w // 7 + 1) + w * (h // 7 + 1), (h // kh) * (w // kw)
    if c * h * w >= LARGEST or b * c * max(strip_sums, pooled, h + w, c // options.num_heads) >= LARGEST or b > IMAGES:
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
    tensors = _tensors(weights)
    plan = _plan_of(x, weights, options, tensors)
    with gpu.current(x):
        out = torch.empty_like(x)
        scratch = torch.empty(plan.scratch, dtype=plan.acc, device=x.device)
        kept = torch.empty(plan.kept, dtype=plan.acc, device=x.device)
        plan.forward(x, out, scratch, kept, *tensors)
    return out, (kept,)


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: Kept
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of all weights."""
    x = dense(x)
    tensors = _tensors(weights)
    plan = _plan_of(x, weights, options, tensors)
    grad = dense_as(grad, x)
    with gpu.current(x):
        grad_x = torch.empty_like(x)
        scratch = torch.empty(plan.backward_scratch, dtype=plan.acc, device=x.device)
        along = torch.empty(plan.along, dtype=x.dtype, device=x.device)
        # One buffer for all; views of it are what autograd then keeps as .grad.
        total = torch.empty(plan.parameters, dtype=plan.same or plan.acc, device=x.device)
        plan.backward(grad, x, grad_x, scratch, kept[0], along, total, *tensors)
    return grad_x, _parts(total, flatten(weights), plan.same)


def _plan_of(x: Tensor, weights: Weights, options: Options, tensors: list[Tensor]) -> Plan:
    return _compiled_plan(
        x.shape,
        x.dtype,
        memory_format(x) == torch.channels_last,
        window(x.shape[2], x.shape[3], options),
        tuple([conv.weight.shape[2] for conv in weights.convs]),
        tuple([layer.bias is not None for layer in weights[4:]]),
        options.num_heads,
        options.unit,
        tuple([t.dtype for t in tensors]),
    )


@functools.lru_cache(maxsize=4096)
def _compiled_plan(*key: Any) -> Plan:
    plan = make_plan(*key)
    compile_together(plan.launches)
    return plan


def _parts(total: Tensor, flat: list[Tensor | None], same: torch.dtype | None) -> list[Tensor | None]:
    """The gradients of all parameters that are there, as they lie one after the other in ``total``."""
    parts = iter(total.split_with_sizes([t.numel() for t in flat if t is not None]))
    grads: list[Tensor | None] = [None if t is None else next(parts) for t in flat]
    for i, t in enumerate(flat):
        if t is not None and t.dim() > 1:
            grads[i] = grads[i].view(t.shape)
    if same is None:
        grads = [None if g is None else g.to(t.dtype) for g, t in zip(grads, flat, strict=True)]
    return grads


def _tensors(weights: Weights) -> list[Tensor]:
    """In the order of ``triton_plan.WEIGHTS``. A missing bias is not read, so that any tensor will do."""
    convs, *layers = weights
    tensors = [conv.weight for conv in convs]
    tensors += [conv.bias for conv in convs]
    for weight, bias in layers:
        tensors += weight, weight if bias is None else bias
    return [t.contiguous() for t in tensors]
