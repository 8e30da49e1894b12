"""CA: coordinate attention.

Paper: Coordinate Attention for Efficient Mobile Network Design, https://arxiv.org/abs/2103.02907. Source of the
parameter names: https://github.com/HZAI-ZJNU/SCSA (Apache-2.0).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ..registry import register_attention
from ._checks import check_positive_int
from ._norms import BatchNorm2d


@register_attention(in_root=False)
class CA(nn.Module):
    """A gate per row and one per column, from strip means through a shared bottleneck; in a config ``scsa_mm.CA``.

    timm's CoordAttn has either no biases or one too many: the published layers of the gates have them, the one before
    the norm has not.

    Args:
        in_channels: Channels C of the input.
        reduction: Ratio of C to the hidden channels, h = max(C // reduction, min_channels).
        min_channels: Least number of hidden channels.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1. In training, the norm sees B (H + W)
        values a channel.

    Cost:
        3 C h + 2 C + 2 h parameters.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if a count is less than 1.
    """

    _abbr_ = 'ca'

    def __init__(self, in_channels: int, reduction: int = 32, min_channels: int = 8) -> None:
        super().__init__()
        for name, value in (('in_channels', in_channels), ('reduction', reduction), ('min_channels', min_channels)):
            check_positive_int('CA', name, value)
        hidden = max(in_channels // reduction, min_channels)
        conv = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.conv = nn.Sequential(OrderedDict(conv=conv, bn=BatchNorm2d(hidden), act=nn.Hardswish()))
        self.attn_h = nn.Conv2d(hidden, in_channels, 1)
        self.attn_w = nn.Conv2d(hidden, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        strips = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], dim=2)
        rows, columns = self.conv(strips).split([h, w], dim=2)
        a_h = self.attn_h(rows).sigmoid().to(x.dtype)
        a_w = self.attn_w(columns.transpose(2, 3)).sigmoid().to(x.dtype)
        return x * a_h * a_w
