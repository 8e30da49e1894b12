"""ELA: efficient local attention.

Paper: ELA: Efficient Local Attention for Deep Convolutional Neural Networks, https://arxiv.org/abs/2403.01123. Source
of the parameter names: https://github.com/HZAI-ZJNU/SCSA (Apache-2.0).
"""

from torch import Tensor, nn

from ..registry import register_attention
from ._checks import check_divisible, check_kernel_size, check_positive_int
from ._norms import GroupNorm


@register_attention(in_root=False)
class ELA(nn.Module):
    """A gate per row and one per column, from a 1-D convolution along the strip means; in a config ``scsa_mm.ELA``.

    Both directions share the convolution and the norm. timm's EfficientLocalAttn computes another function: it has a
    convolution and a norm of one group for each direction, and a SiLU before the gate.

    Args:
        in_channels: Channels C of the input; a multiple of ``num_groups``.
        kernel_size: Length k of the depthwise convolution; odd.
        num_groups: Groups of the norm.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Cost:
        k C + 2 C parameters.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if C is not a multiple of ``num_groups`` (the message lists those to choose from), or
            ``kernel_size`` is even.
    """

    _abbr_ = 'ela'

    def __init__(self, in_channels: int, kernel_size: int = 7, num_groups: int = 16) -> None:
        super().__init__()
        check_positive_int('ELA', 'in_channels', in_channels)
        check_kernel_size('ELA', kernel_size)
        check_positive_int('ELA', 'num_groups', num_groups)
        check_divisible('ELA', in_channels, num_groups, 'num_groups')
        self.conv = nn.Conv1d(
            in_channels, in_channels, kernel_size, padding=kernel_size // 2, groups=in_channels, bias=False
        )
        self.gn = GroupNorm(num_groups, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        a_h, a_w = [self.gn(self.conv(strip)).sigmoid().to(x.dtype) for strip in (x.mean(3), x.mean(2))]
        return x * a_h.unsqueeze(3) * a_w.unsqueeze(2)
