"""SA: shuffle attention.

Paper: SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, https://arxiv.org/abs/2102.00240. Source of
the parameter names: https://github.com/HZAI-ZJNU/SCSA (Apache-2.0).
"""

import torch
from torch import Tensor, nn

from ..registry import register_attention
from ._checks import check_divisible, check_positive_int
from ._norms import GroupNorm


@register_attention(in_root=False)
class SA(nn.Module):
    """Half of each channel group gets a gate per channel, the other half one per position; ``scsa_mm.SA``.

    The groups share all the weights. Afterwards the channels are shuffled: the first half of all channels alternates
    with the second.

    Args:
        in_channels: Channels C of the input; a multiple of 2 ``groups``.
        groups: Channel groups; c = C / (2 groups) channels in each half.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype; H, W >= 1.

    Cost:
        6 c parameters.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if C is not a multiple of 2 ``groups``; the message lists the groups to choose from.
    """

    _abbr_ = 'sa'

    def __init__(self, in_channels: int, groups: int = 64) -> None:
        super().__init__()
        check_positive_int('SA', 'in_channels', in_channels)
        check_positive_int('SA', 'groups', groups)
        check_divisible('SA', in_channels, 2)
        check_divisible('SA', in_channels, groups, 'groups', times=2)
        c = in_channels // (2 * groups)
        self.groups = groups
        self.c_w, self.s_w = (nn.Parameter(torch.zeros(1, c, 1, 1)) for _ in range(2))
        self.c_b, self.s_b = (nn.Parameter(torch.ones(1, c, 1, 1)) for _ in range(2))
        self.gn = GroupNorm(c, c)

    def forward(self, x: Tensor) -> Tensor:
        b, channels, h, w = x.shape
        x_c, x_s = x.reshape(b * self.groups, channels // self.groups, h, w).chunk(2, dim=1)
        a_c = (self.c_w * x_c.mean((2, 3), keepdim=True) + self.c_b).sigmoid().to(x.dtype)
        a_s = (self.s_w * self.gn(x_s) + self.s_b).sigmoid().to(x.dtype)
        y = torch.cat([x_c * a_c, x_s * a_s], dim=1)
        return y.reshape(b, 2, channels // 2, h, w).transpose(1, 2).reshape(b, channels, h, w)
