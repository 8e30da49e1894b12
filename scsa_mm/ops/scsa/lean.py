"""Exact SCSA that keeps only x and strips for backward, and makes few passes over feature maps.

Paper: arXiv 2407.05128, section 3. What makes it cheap, and is exact:

- The pooled map is a windowed sum of ``x * a_h * a_w``, and the output ``x * (a_h * g) * a_w``: the map between the two
  halves is never made.
- With G the incoming gradient and U that of the pooled map spread over its windows, the gradient of that map is
  ``G * g + U``; sums of it over rows and columns, which the gates need, follow from sums over G and over x alone.

The passes over maps are in ``maps``; what is left are strips, pooled maps and C x C weights, which backward computes
again and lets autograd differentiate.
"""

import torch
from torch import Tensor

from ..arithmetic import sum_dtype, without_autocast
from . import maps
from .arguments import Options, Weights, layers, misfit, unflatten, window
from .reference import pooled_gate, strip_gate

Kept = tuple[Tensor, Tensor, Tensor]

SPATIAL = 12  # of the flat weights belong to SMSA


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why this cannot be run; empty if it can."""
    if options.down_sample_mode != 'avg_pool':
        return f'down_sample_mode={options.down_sample_mode!r}'
    if options.attn_drop:
        return 'attn_drop while training'
    return misfit(x, weights, options)


def forward(x: Tensor, weights: Weights, options: Options) -> tuple[Tensor, Kept]:
    """SCSA of x (B, C, H, W), and what backward needs beside x: strips (B, C, H), (B, C, W) and pooled map."""
    with without_autocast(x):
        weights = _in_sum_dtype(weights, x)
        x_h, x_w = maps.strips(x)
        a_h, a_w = _strip_gates(x_h, x_w, weights, options)
        pooled = maps.pooled(x, a_h, a_w, window(*x.shape[2:], options))
        g = _pooled_gate(pooled, weights, options)
        return maps.scaled(x, a_h * g, a_w), (x_h, x_w, pooled)


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: Kept
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of all weights."""
    kernel = kh, kw = window(*x.shape[2:], options)
    with without_autocast(x):
        x_h, x_w, pooled = (t.detach().requires_grad_() for t in kept)
        flat = [None if t is None else t.detach().requires_grad_() for t in _in_sum_dtype(weights, x)]
        with torch.enable_grad():
            leaves = unflatten(flat)
            gate_h, gate_w = _strip_gates(x_h, x_w, leaves, options)
            gate = _pooled_gate(pooled, leaves, options)
        a_h, a_w, g = gate_h.detach(), gate_w.detach(), gate.detach()

        r_h, r_w, v_h, v_w = maps.grad_sums(grad, x, a_h, a_w, kernel)
        channel = [t for t in flat[SPATIAL:] if t is not None]
        u, *channel_grads = torch.autograd.grad(gate, [pooled, *channel], (a_h * r_h).sum(2, keepdim=True))
        u /= kh * kw
        da_h, da_w = g * r_h, g * r_w
        da_h[:, :, : v_h.shape[2]] += (u.repeat_interleave(kh, 2) * v_h).sum(3)
        da_w[:, :, : u.shape[3] * kw] += (u.repeat_interleave(kw, 3) * v_w[..., : u.shape[3] * kw]).sum(2)
        d_h, d_w, *spatial_grads = torch.autograd.grad((gate_h, gate_w), [x_h, x_w, *flat[:SPATIAL]], (da_h, da_w))
        dx = maps.grad_input(grad, g.squeeze(2), u, a_h, a_w, d_h / x.shape[3], d_w / x.shape[2], kernel)
    found = iter((*spatial_grads, *channel_grads))
    return dx, [None if t is None else next(found).to(t.dtype) for t in weights]


def _in_sum_dtype(weights: Weights, x: Tensor) -> Weights:
    dtype = sum_dtype(x)
    return unflatten(None if t is None else t.to(dtype) for t in weights)


def _strip_gates(x_h: Tensor, x_w: Tensor, weights: Weights, options: Options) -> tuple[Tensor, Tensor]:
    convs, norm_h, norm_w, *_ = layers(weights)
    return tuple(
        strip_gate(strip, convs, norm, options.gate, options.unit) for strip, norm in ((x_h, norm_h), (x_w, norm_w))
    )


def _pooled_gate(pooled: Tensor, weights: Weights, options: Options) -> Tensor:
    """(B, C, 1)."""
    gate = pooled_gate(pooled, *layers(weights)[3:], options)
    return gate.squeeze(3)
