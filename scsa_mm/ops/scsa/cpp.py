"""SCSA on the CPU, in C++ (native/scsa.cpp).

Paper: arXiv 2407.05128, section 3. The algebra is that of ``lean``. What PyTorch does in a hundred small operations,
each longer than its arithmetic on the maps of a detector's later stages, is done in one call here.
"""

from array import array

import torch
from torch import Tensor

from ..arithmetic import dense, dense_as, memory_format, sum_dtype
from ..native.calls import DTYPES, call, check_kept, unsupported_dtype
from .arguments import Options, Weights, misfit, unusual, window

Kept = tuple[Tensor, Tensor, Tensor]


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why this cannot be run; empty if it can."""
    if x.device.type != 'cpu':
        return f'x is on {x.device}'
    if reason := unsupported_dtype(x):
        return reason
    if reason := unusual(options):
        return reason
    biases = [bias is not None for bias in (weights.q_bias, weights.k_bias, weights.v_bias)]
    if any(biases) != all(biases):
        return 'some of q, k, v have a bias'
    return misfit(x, weights, options)


def kept_like(x: Tensor, options: Options) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor that forward keeps beside x."""
    b, c, h, w = x.shape
    kh, kw = window(h, w, options)
    return [(shape, sum_dtype(x)) for shape in ((b, c, h), (b, c, w), (b, c, h // kh, w // kw))]


def forward(x: Tensor, weights: Weights, options: Options) -> tuple[Tensor, Kept]:
    """SCSA of x (B, C, H, W), and what backward needs beside x: strips (B, C, H), (B, C, W) and pooled map."""
    x = dense(x)
    kept = tuple(x.new_empty(shape, dtype=dtype) for shape, dtype in kept_like(x, options))
    out = torch.empty_like(x)
    call('scsa_forward', x, DTYPES[x.dtype], _numbers(x, weights, options), _packed(weights, x), *kept, out)
    return out, kept


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: Kept
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of all weights."""
    x = dense(x)
    grad = dense_as(grad, x)
    check_kept(x, grad, kept, kept_like(x, options))
    kept = tuple(t.contiguous() for t in kept)
    grad_x, packed = torch.empty_like(x), _packed(weights, x)
    # One row an image, so that no two threads add to one number.
    grads = packed.new_empty((len(x), len(packed)))
    call('scsa_backward', grad, x, DTYPES[x.dtype], _numbers(x, weights, options), packed, *kept, grad_x, grads)
    parts = iter(grads.sum(0).split([t.numel() for t in weights if t is not None]))
    return grad_x, [None if t is None else next(parts).reshape(t.shape).to(t.dtype) for t in weights]


def _numbers(x: Tensor, weights: Weights, options: Options) -> array:
    """As native/scsa.cpp lists them."""
    return array(
        'q',
        (
            *x.shape,
            memory_format(x) == torch.channels_last,
            *(weight.shape[-1] for weight in weights[:8:2]),
            options.num_heads,
            *window(*x.shape[2:], options),
            weights.q_bias is not None,
            options.unit,
        ),
    )


def _packed(weights: Weights, x: Tensor) -> Tensor:
    return torch.cat([t.detach().reshape(-1).to(sum_dtype(x)) for t in weights if t is not None])
