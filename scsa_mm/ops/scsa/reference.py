"""Plain PyTorch form of SCSA: what any faster version is compared with.

Paper: SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention, arXiv 2407.05128, section 3.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arithmetic import EPS, Affine
from .arguments import Options, Weights, layers


def scsa(x: Tensor, weights: Weights, options: Options) -> Tensor:
    """Spatial and channel synergistic attention: PCSA(SMSA(x)).

    Args:
        x: (B, C, H, W); C a multiple of 4.
        weights: See :class:`Weights`.
        options: See :class:`Options`.

    Returns:
        (B, C, H, W), in the dtype of ``x``.
    """
    convs, norm_h, norm_w, *channel = layers(weights)
    a_h, a_w = spatial_gates(x, convs, norm_h, norm_w, options.gate, options.unit)
    x = x * a_h * a_w
    return x * channel_gate(x, *channel, options)


def _gate(z: Tensor, kind: str, dim: int, unit: bool) -> Tensor:
    """Sigmoid or softmax over ``dim``. With ``unit``, scaled so that equal logits of 0 give 1 and not 1/2 or 1/n."""
    if kind == 'sigmoid':
        return 2 * z.sigmoid() if unit else z.sigmoid()
    a = z.softmax(dim)
    return a * z.shape[dim] if unit else a


def _group_norm(x: Tensor, groups: int, affine: Affine) -> Tensor:
    # torch.group_norm, because nn.functional.group_norm refuses one value a group, which a 1x1 map can give.
    return torch.group_norm(x, groups, affine.weight, affine.bias, EPS)


def spatial_gates(
    x: Tensor, convs: Sequence[Affine], norm_h: Affine, norm_w: Affine, gate: str = 'sigmoid', unit: bool = False
) -> tuple[Tensor, Tensor]:
    """Gates of SMSA (section 3.1), one per row and one per column.

    Args:
        x: (B, C, H, W); C a multiple of the number of convolutions.
        convs: Depthwise 1-D convolutions, weights (C/4, 1, k) with odd k, one per sub-feature.
        norm_h: GroupNorm of the row strips, (C,) each; as many groups as convolutions.
        norm_w: GroupNorm of the column strips.
        gate: ``'sigmoid'``, or ``'softmax'`` over the length of the strip.
        unit: Scale the gates so that a logit of 0 means 1.

    Returns:
        Row gates (B, C, H, 1) and column gates (B, C, 1, W), in the dtype of ``x``.
    """

    a_h = strip_gate(x.mean(3), convs, norm_h, gate, unit).to(x.dtype)
    a_w = strip_gate(x.mean(2), convs, norm_w, gate, unit).to(x.dtype)
    return a_h.unsqueeze(3), a_w.unsqueeze(2)


def strip_gate(strip: Tensor, convs: Sequence[Affine], norm: Affine, gate: str, unit: bool) -> Tensor:
    """Gate (B, C, L) of the strip (B, C, L); the rest as in :func:`spatial_gates`."""
    # int, because tracing has sizes as tensors.
    parts = [
        F.conv1d(part, conv.weight, conv.bias, padding=int(conv.weight.shape[2]) // 2, groups=int(conv.weight.shape[0]))
        for part, conv in zip(strip.chunk(len(convs), dim=1), convs)  # noqa: B905  (a graph break in torch 2.1)
    ]
    return _gate(_group_norm(torch.cat(parts, dim=1), len(convs), norm), gate, 2, unit)


def _pool(x: Tensor, window_size: int, mode: str) -> Tensor:
    """Non-overlapping windows of at most ``window_size``; rows and columns past the last whole window are dropped."""
    h, w = x.shape[2:]
    if window_size == -1:
        return x.mean((2, 3), keepdim=True)
    if torch.onnx.is_in_onnx_export():
        return _pool_padded(x, window_size, mode)
    kernel = (min(window_size, h), min(window_size, w))
    return F.avg_pool2d(x, kernel) if mode == 'avg_pool' else F.max_pool2d(x, kernel)


def _pool_padded(x: Tensor, window_size: int, mode: str) -> Tensor:
    """The same, with a smaller map filled up instead of the window cut: ONNX has no window that depends on the map."""
    missing_h, missing_w = (_positive_part(window_size - size) for size in x.shape[2:])
    fill = (0, missing_w, 0, missing_h)
    if mode == 'max_pool':
        return F.max_pool2d(F.pad(x, fill, value=-math.inf), window_size)
    inside = (window_size - missing_h) * (window_size - missing_w)
    return F.avg_pool2d(F.pad(x, fill), window_size) * (window_size**2 / inside)


def _positive_part(n: torch.SymInt | Tensor) -> torch.SymInt | Tensor:
    """max(n, 0) of what the exporters have in place of a size: a symbol, or in the older one a tensor."""
    return n.clamp(min=0) if isinstance(n, Tensor) else torch.sym_max(n, 0)


def channel_gate(x: Tensor, norm: Affine, q: Affine, k: Affine, v: Affine, options: Options) -> Tensor:
    """Gate of PCSA (section 3.2), one per channel, from self-attention between the channels.

    Args:
        x: (B, C, H, W).
        norm: GroupNorm with one group, (C,) each.
        q: Per-channel scale of the queries, weight (C, 1, 1, 1), as are ``k`` and ``v``.
        options: See :class:`Options`.

    Returns:
        (B, C, 1, 1), in the dtype of ``x``.
    """
    pooled = _pool(x, options.window_size, options.down_sample_mode)
    return pooled_gate(pooled, norm, q, k, v, options).to(x.dtype)


def pooled_gate(pooled: Tensor, norm: Affine, q: Affine, k: Affine, v: Affine, options: Options) -> Tensor:
    """Gate (B, C, 1, 1) of the pooled map (B, C, h, w); the rest as in :func:`channel_gate`."""
    b, c = pooled.shape[:2]
    heads = options.num_heads
    y = _group_norm(pooled, 1, norm)
    # Heads are consecutive channels: (B, heads, d, n).
    queries, keys, values = [
        F.conv2d(y, p.weight, p.bias, groups=c).flatten(2).unflatten(1, (heads, c // heads)) for p in (q, k, v)
    ]
    # Scaled before the product, which could pass float16's largest number.
    attn = (queries / math.sqrt(c // heads) @ keys.transpose(2, 3)).softmax(3)
    attn = F.dropout(attn, options.attn_drop)
    # The mean over positions commutes with the product: take it of the values, and d*d*n multiplications are saved.
    z = (attn @ values.mean(3, keepdim=True)).reshape(b, c, 1, 1)
    return _gate(z, options.gate, 1, options.unit)
