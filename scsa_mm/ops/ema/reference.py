"""Plain PyTorch form of EMA: what any faster version is compared with.

Paper: Efficient Multi-Scale Attention Module with Cross-Spatial Learning, arXiv 2305.13563, section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arithmetic import EPS
from .arguments import Options, Weights


def ema(x: Tensor, weights: Weights, options: Options) -> Tensor:
    """Efficient multi-scale attention.

    Args:
        x: (B, C, H, W); C a multiple of ``options.groups``.
        weights: See :class:`Weights`.
        options: See :class:`Options`.

    Returns:
        (B, C, H, W), in the dtype of ``x``.
    """
    b, channels, h, w = x.shape
    groups, unit = options
    # Not channels // groups: the ONNX exporter that traces has that as a tensor, and the norm needs a number.
    c = int(weights.norm.weight.shape[0])
    g = x.reshape(b * groups, c, h, w)

    # Branch 1: strips along both directions through one convolution.
    strips = torch.cat([g.mean(3), g.mean(2)], dim=2).unsqueeze(3)
    a_h, a_w = F.conv2d(strips, *weights.conv1x1).sigmoid().to(x.dtype).split([h, w], dim=2)
    # torch.group_norm, because nn.functional.group_norm refuses one value a group, which a 1x1 map can give.
    branch1 = torch.group_norm(g * a_h * a_w.transpose(2, 3), c, *weights.norm, EPS)
    branch2 = F.conv2d(g, *weights.conv3x3, padding=1)

    def weigh(channel_source: Tensor, spatial_source: Tensor) -> Tensor:
        weight = channel_source.mean((2, 3)).softmax(1).unsqueeze(1)
        return weight @ spatial_source.flatten(2)

    # Cross-spatial learning: each branch's channel weights look at the other branch's map.
    attn = (weigh(branch1, branch2) + weigh(branch2, branch1)).reshape(b * groups, 1, h, w).sigmoid()
    if unit:
        attn = 2 * attn
    return (g * attn.to(x.dtype)).reshape(b, channels, h, w)
