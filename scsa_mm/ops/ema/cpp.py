"""EMA on the CPU, one group of channels after the other in compiled code (native/ema.cpp).

Paper: arXiv 2305.13563, section 3. The algebra is that of ``lean``. The c planes of a group are small enough for the
cache of one core, so that x is read from memory once and the output written once, in both directions.
"""

import ctypes

import torch
from torch import Tensor

from ..arithmetic import dense, dense_as, memory_format, sum_dtype
from ..native import library
from ..native.calls import DTYPES, call, check_kept, unsupported_dtype
from . import lean
from .arguments import Options, Weights, flatten

Kept = tuple[Tensor, Tensor, Tensor]

# With so few channels a group, its map is a large part of x, and computing it again is faster than reading it.
FEW = 2


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why this cannot be run; empty if it can."""
    if x.device.type != 'cpu':
        return f'x is on {x.device}'
    return unsupported_dtype(x) or lean.unsupported(x, weights, options)


def kept_like(x: Tensor, options: Options) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor that forward keeps beside x."""
    n, c, h, w = _grouped_shape(x, options)
    dtype = sum_dtype(x)
    return [((n, c, h + w), dtype), ((n, 3, c), dtype), ((n if c > FEW else 0, h, w), x.dtype)]


def forward(x: Tensor, weights: Weights, options: Options) -> tuple[Tensor, Kept]:
    """EMA of x (B, C, H, W), and what backward needs beside x.

    Kept are strips, mean and 1 / deviation of branch 1 with the channel weights of branch 2, and from three channels a
    group on the attention before its sigmoid, in the dtype of x.
    """
    x = dense(x)
    kept = tuple(x.new_empty(shape, dtype=dtype) for shape, dtype in kept_like(x, options))
    out = torch.empty_like(x)
    call('ema_forward', *_common(x, options), *_parameters(x, weights), *kept, out)
    return out, kept


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: Kept
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of all weights."""
    x = dense(x)
    grad = dense_as(grad, x)
    check_kept(x, grad, kept, kept_like(x, options))
    kept = tuple(t.contiguous() for t in kept)
    n, c, _, _ = _grouped_shape(x, options)
    shares = x.new_empty(n, library().ema_shares(ctypes.c_int64(c)), dtype=sum_dtype(x))
    d_strips = torch.empty_like(kept[0])
    out = torch.empty_like(x)
    parameters = _parameters(x, weights)
    found = [torch.empty_like(t) for t in parameters]
    call('ema_backward', *_common(x, options), *parameters, *kept, grad, shares, d_strips, out, *found)
    return out, [None if t is None else g.to(t.dtype) for g, t in zip(found, flatten(weights), strict=True)]


def _grouped_shape(x: Tensor, options: Options) -> tuple[int, int, int, int]:
    b, channels, h, w = x.shape
    return b * options.groups, channels // options.groups, h, w


def _common(x: Tensor, options: Options) -> list[Tensor | int]:
    _, c, h, w = _grouped_shape(x, options)
    channels_last = memory_format(x) == torch.channels_last
    return [x, DTYPES[x.dtype], x.shape[0], options.groups, c, h, w, int(channels_last), int(options.unit)]


def _parameters(x: Tensor, weights: Weights) -> list[Tensor]:
    """All of them, zeros for a bias that is missing."""
    zeros = x.new_zeros(weights.norm.weight.shape, dtype=sum_dtype(x))
    return [zeros if t is None else t.detach().to(zeros.dtype).contiguous() for t in flatten(weights)]
