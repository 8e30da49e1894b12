"""Exact EMA that keeps x, strips and one map per group for backward.

Paper: arXiv 2305.13563, section 3. What makes it cheap, and is exact, with c channels a group:

- Branch 1 leaves a GroupNorm with one channel a group, so that its mean over positions is the norm's bias: its channel
  weights are softmax(bias), the same for all images and groups. Together with branch 2 they are one convolution
  from c channels to 1, whose filters are those of branch 2 summed under these weights.
- The mean of branch 2 over positions is linear in nine sums of x, one per place in the 3x3 window.
- Branch 1 under the weights of branch 2 is a weighted sum of ``x * a_h * a_w``, less its mean, over channels.

What is small (strips, channels, filters) is computed again in backward and left to autograd.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arithmetic import EPS, Affine, sum_dtype, without_autocast
from .arguments import Options, Weights, flatten, unflatten

PARTS = 8

Kept = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def unsupported(x: Tensor, weights: Weights, options: Options) -> str:
    """Why this cannot be run; empty if it can. What the reference refuses, it says in PyTorch's words."""
    c = weights.norm.weight.shape[0]
    shapes = (c, c, 1, 1), (c,), (c,), (c,), (c, c, 3, 3), (c,)
    found = [None if t is None else tuple(t.shape) for t in flatten(weights)]
    biases = 1, 5  # of the convolutions, which may be missing
    fits = (f == s or (f is None and i in biases) for i, (f, s) in enumerate(zip(found, shapes, strict=True)))
    if x.shape[1] != options.groups * c or not all(fits):
        return f'x of {tuple(x.shape)} in {options.groups} groups, weights of {found}'
    return ''


def forward(x: Tensor, weights: Weights, options: Options) -> tuple[Tensor, Kept]:
    """EMA of x (B, C, H, W), and what backward needs beside x.

    Kept are strips (B, groups, c, H + W), means and variances of branch 1 (B, groups, c), the nine sums
    (B, groups, c, 3, 3) and the attention (B, groups, H, W) before its sigmoid.
    """
    h, w = x.shape[2:]
    with without_autocast(x):
        weights = _in_sum_dtype(weights, x)
        g = _grouped(x, options)
        strips = torch.cat([g.mean(4), g.mean(3)], dim=3)
        sums = _window_sums(g, strips)
        a_h, a_w = _gates(strips, weights.conv1x1).split([h, w], dim=3)
        y = _gated(g, a_h, a_w)
        var, mean = torch.var_mean(y, dim=(3, 4), unbiased=False)
        k, filters, constant = _mixture(var, sums, weights, h * w)
        logit = torch.einsum('bgchw,bgc->bghw', y.sub_(mean[..., None, None]), k)
        del y
        logit += F.conv2d(g.flatten(0, 1), filters, padding=1).view_as(logit)
        logit += constant[..., None, None]
        # Backward must see the gate that was used, also if it is kept in fewer bits.
        logit = logit.to(x.dtype)
        gate = _gate(logit.to(g.dtype), options)
        out = torch.empty_like(x)
        torch.mul(g, gate.unsqueeze(2), out=out.unflatten(1, g.shape[1:3]))
    return out, (strips, mean, var, sums, logit)


def backward(
    grad: Tensor, x: Tensor, weights: Weights, options: Options, kept: Kept
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of x and of all weights."""
    h, w = x.shape[2:]
    n = h * w
    with without_autocast(x):
        strips, mean, var, sums, logit = kept
        g, grad = _grouped(x, options), _grouped(grad, options)
        strips, var, sums = (t.detach().requires_grad_() for t in (strips, var, sums))
        flat = [None if t is None else t.detach().requires_grad_() for t in flatten(_in_sum_dtype(weights, x))]
        with torch.enable_grad():
            leaves = unflatten(flat)
            gates = _gates(strips, leaves.conv1x1)
            mixture = _mixture(var, sums, leaves, n)
        a_h, a_w = gates.detach().split([h, w], dim=3)
        k, filters, _ = (t.detach() for t in mixture)

        # D, the gradient of the logit, and what it gives to all that is small. Centred values lose no digits in sums.
        gate = _gate(logit.to(g.dtype), options)
        d = (grad * g).sum(2) * gate * (1 - gate / 2 if options.unit else 1 - gate)
        total = d.sum((2, 3))
        y = _gated(g, a_h, a_w).sub_(mean[..., None, None])
        d_k = (y * d.unsqueeze(2)).sum((3, 4))
        flat_d = d.flatten(0, 1).unsqueeze(1)
        # In parts, because this is one long sum, in which float32 loses digits.
        parts = zip(g.flatten(0, 1).chunk(PARTS), flat_d.chunk(PARTS), strict=True)
        d_filters = sum(torch.nn.grad.conv2d_weight(a, filters.shape, b, padding=1) for a, b in parts)
        last = [t for t in flat[2:] if t is not None]
        d_var, d_sums, *last_grads = torch.autograd.grad(mixture, [var, sums, *last], (d_k, d_filters, total))

        # The gradient of y comes through its weight in the logit, its mean and its variance.
        dy = y.mul_((2 / n * d_var)[..., None, None])
        dy += k[..., None, None] * (d - (total / n)[..., None, None]).unsqueeze(2)
        product = dy * g
        d_gates = torch.cat([product @ a_w.unsqueeze(4), (a_h.unsqueeze(3) @ product).transpose(3, 4)], dim=3)
        first = [t for t in flat[:2] if t is not None]
        d_strips, *first_grads = torch.autograd.grad(gates, [strips, *first], d_gates.squeeze(4))
        d_h, d_w = d_strips.split([h, w], dim=3)
        d_h, d_w, corners = _spread(d_sums, d_h / w, d_w / h)

        dx = dy.mul_(a_h.unsqueeze(4)).mul_(a_w.unsqueeze(3))
        dx += F.conv_transpose2d(flat_d, filters, padding=1).view_as(dx)
        dx += d_h.unsqueeze(4)
        dx += d_w.unsqueeze(3)
        for i, j, value in corners:
            dx[..., i, j] += value
        dx.addcmul_(grad, gate.unsqueeze(2))
        out = torch.empty_like(x)
        out.unflatten(1, g.shape[1:3]).copy_(dx)
    found = iter((*first_grads, *last_grads))
    return out, [None if t is None else next(found).to(t.dtype) for t in flatten(weights)]


def _in_sum_dtype(weights: Weights, x: Tensor) -> Weights:
    dtype = sum_dtype(x)
    return unflatten(None if t is None else t.to(dtype) for t in flatten(weights))


def _grouped(x: Tensor, options: Options) -> Tensor:
    """(B, groups, c, H, W), in the dtype of sums."""
    return x.to(sum_dtype(x)).unflatten(1, (options.groups, x.shape[1] // options.groups))


def _gates(strips: Tensor, conv: Affine) -> Tensor:
    """(B, groups, c, H + W)."""
    z = conv.weight.flatten(1) @ strips
    return (z if conv.bias is None else z + conv.bias[:, None]).sigmoid()


def _gated(g: Tensor, a_h: Tensor, a_w: Tensor) -> Tensor:
    return (g * a_h.unsqueeze(4)).mul_(a_w.unsqueeze(3))


def _gate(logit: Tensor, options: Options) -> Tensor:
    return 2 * logit.sigmoid() if options.unit else logit.sigmoid()


def _window_sums(g: Tensor, strips: Tensor) -> Tensor:
    """Sums (B, groups, c, 3, 3) of what each place of the 3x3 window meets, with zeros around the map."""
    h, w = g.shape[3:]
    rows = strips[..., :h] * w
    rows = torch.stack([rows - g[..., w - 1], rows, rows - g[..., 0]], dim=4)
    return torch.stack([rows[..., :-1, :].sum(3), rows.sum(3), rows[..., 1:, :].sum(3)], dim=3)


def _spread(d_sums: Tensor, d_h: Tensor, d_w: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int, Tensor]]]:
    """Gradient of x through its nine sums: all of it everywhere, less some in the first and last rows and columns.

    Returns:
        The given parts of one value a row (B, groups, c, H) and a column (..., W) with it, and (row, column, value) of
        the corners, where too much was taken off.
    """
    d_h = d_h + d_sums.sum((3, 4)).unsqueeze(3)
    d_w = d_w.clone()
    for i, k in (0, 2), (-1, 0):  # the first row and column are never under the window's last ones, and so on
        d_h[..., i] -= d_sums[..., k, :].sum(3)
        d_w[..., i] -= d_sums[..., :, k].sum(3)
    corners = [(i, j, d_sums[..., k, m]) for i, k in ((0, 2), (-1, 0)) for j, m in ((0, 2), (-1, 0))]
    return d_h, d_w, corners


def _mixture(var: Tensor, sums: Tensor, weights: Weights, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """How the logit is made: of centred y by weights (B, groups, c), of x by filters (1, c, 3, 3), and a constant."""
    _, norm, conv = weights
    first = norm.bias.softmax(0)
    second = torch.einsum('oikl,bgikl->bgo', conv.weight, sums) / n
    if conv.bias is not None:
        second = second + conv.bias
    second = second.softmax(2)
    k = second * norm.weight * (var + EPS).rsqrt()
    filters = torch.einsum('o,oikl->ikl', first, conv.weight).unsqueeze(0)
    constant = second @ norm.bias
    return k, filters, constant if conv.bias is None else constant + first @ conv.bias
