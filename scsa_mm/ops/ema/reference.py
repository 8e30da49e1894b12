"""Plain PyTorch form of EMA: what any faster version is compared with.

Paper: Efficient Multi-Scale Attention Module with Cross-Spatial Learning, arXiv 2305.13563, section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-5


def ema(
    x: Tensor,
    groups: int,
    conv1x1_weight: Tensor,
    conv1x1_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    conv3x3_weight: Tensor,
    conv3x3_bias: Tensor,
    unit: bool = False,
) -> Tensor:
    """Efficient multi-scale attention.

    Args:
        x: (B, C, H, W); C a multiple of ``groups``, and c = C / groups below.
        groups: Channel groups that share all the weights.
        conv1x1_weight: (c, c, 1, 1), with bias (c,): mixes the strip descriptors of branch 1.
        norm_weight: (c,), as ``norm_bias``: normalises branch 1, one group per channel.
        conv3x3_weight: (c, c, 3, 3), with bias (c,): branch 2.
        unit: Double the last sigmoid, so that a logit of 0 means 1.

    Returns:
        (B, C, H, W), in the dtype of ``x``.
    """
    b, channels, h, w = x.shape
    # Not channels // groups: the ONNX exporter that traces has that as a tensor, and the norm needs a number.
    c = int(norm_weight.shape[0])
    g = x.reshape(b * groups, c, h, w)

    # Branch 1: strips along both directions through one convolution.
    strips = torch.cat([g.mean(3), g.mean(2)], dim=2).unsqueeze(3)
    a_h, a_w = F.conv2d(strips, conv1x1_weight, conv1x1_bias).sigmoid().to(x.dtype).split([h, w], dim=2)
    # torch.group_norm, because nn.functional.group_norm refuses one value a group, which a 1x1 map can give.
    branch1 = torch.group_norm(g * a_h * a_w.transpose(2, 3), c, norm_weight, norm_bias, EPS)
    branch2 = F.conv2d(g, conv3x3_weight, conv3x3_bias, padding=1)

    def weigh(channel_source: Tensor, spatial_source: Tensor) -> Tensor:
        weight = channel_source.mean((2, 3)).softmax(1).unsqueeze(1)
        return weight @ spatial_source.flatten(2)

    # Cross-spatial learning: each branch's channel weights look at the other branch's map.
    attn = (weigh(branch1, branch2) + weigh(branch2, branch1)).reshape(b * groups, 1, h, w).sigmoid()
    if unit:
        attn = 2 * attn
    return (g * attn.to(x.dtype)).reshape(b, channels, h, w)
