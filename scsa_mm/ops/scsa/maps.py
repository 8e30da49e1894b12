"""The five passes of SCSA over feature maps, in plain PyTorch; everything else works on strips and pooled maps.

Forward needs x three times (strips, pooled, scaled); backward needs x once and the incoming gradient twice (grad_sums,
grad_input). Only x has to be kept.

Shapes below: B images, C channels, windows of (kh, kw) pixels, of which h = H // kh by w = W // kw are whole.
``a_h`` (B, C, H) and ``a_w`` (B, C, W) are the gates of SMSA. All but maps are in the dtype of sums.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arithmetic import memory_format, sum_dtype

Window = tuple[int, int]


def strips(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the rows (B, C, H) and over the columns (B, C, W) of x (B, C, H, W)."""
    dtype = sum_dtype(x)
    return x.mean(3, dtype=dtype), x.mean(2, dtype=dtype)


def pooled(x: Tensor, a_h: Tensor, a_w: Tensor, window: Window) -> Tensor:
    """Means (B, C, h, w) over windows of ``x * a_h * a_w``."""
    return F.avg_pool2d(_gated(x, a_h, a_w), window)


def scaled(x: Tensor, r_h: Tensor, r_w: Tensor) -> Tensor:
    """``x * r_h * r_w``, in the dtype and memory format of x."""
    return _gated(x, r_h, r_w).to(x.dtype)


def grad_sums(
    grad: Tensor, x: Tensor, a_h: Tensor, a_w: Tensor, window: Window
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the gradients of all gates need of the maps.

    Returns:
        Sums of ``grad * x * a_w`` over the rows (B, C, H) and of ``grad * x * a_h`` over the columns (B, C, W); sums of
        ``x * a_w`` over the width of each window (B, C, h * kh, w), and of ``x * a_h`` over its height (B, C, h, W).
    """
    (kh, kw), dtype = window, sum_dtype(x)
    rows, columns = (n // k for n, k in zip(x.shape[2:], window, strict=True))
    product = grad.to(dtype) * x
    r_h = (product @ a_w.unsqueeze(3)).squeeze(3)
    r_w = (a_h.unsqueeze(2) @ product).squeeze(2)
    product = torch.mul(x, a_w.unsqueeze(2), out=product)
    v_h = product[:, :, : rows * kh, : columns * kw].unflatten(3, (columns, kw)).sum(4)
    product = torch.mul(x, a_h.unsqueeze(3), out=product)
    v_w = product[:, :, : rows * kh].unflatten(2, (rows, kh)).sum(3)
    return r_h, r_w, v_h, v_w


def grad_input(
    grad: Tensor, g: Tensor, u: Tensor, a_h: Tensor, a_w: Tensor, d_h: Tensor, d_w: Tensor, window: Window
) -> Tensor:
    """``(grad * g + u) * a_h * a_w + d_h + d_w``, in the dtype of ``grad``.

    Args:
        grad: (B, C, H, W).
        g: Gate of PCSA (B, C).
        u: (B, C, h, w), added to every pixel of its window.
        d_h: (B, C, H), as ``d_w`` (B, C, W): added to each row and column.
    """
    rows, columns = u.shape[2:]
    kh, kw = window
    result = grad * g[:, :, None, None]
    inside = result[:, :, : rows * kh, : columns * kw].unflatten(3, (columns, kw)).unflatten(2, (rows, kh))
    inside += u[:, :, :, None, :, None]
    result *= a_h.unsqueeze(3)
    result *= a_w.unsqueeze(2)
    result += d_h.unsqueeze(3)
    result += d_w.unsqueeze(2)
    return result.to(grad.dtype)


def _gated(x: Tensor, r_h: Tensor, r_w: Tensor) -> Tensor:
    gated = torch.mul(x, r_h.unsqueeze(3), out=torch.empty_like(x, dtype=r_h.dtype, memory_format=memory_format(x)))
    gated *= r_w.unsqueeze(2)
    return gated
