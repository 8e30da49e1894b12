"""SK: selective kernel.

Paper: Selective Kernel Networks, https://arxiv.org/abs/1903.06586. Source of the parameter names:
https://github.com/HZAI-ZJNU/SCSA (Apache-2.0).
"""

import functools
from collections import OrderedDict

import torch
from torch import Tensor, nn

from ..registry import register_attention
from ._checks import check_divisible, check_positive_int
from ._norms import BatchNorm2d


def _conv_norm(in_channels: int, out_channels: int, kernel_size: int, dilation: int, groups: int) -> nn.Sequential:
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    return nn.Sequential(OrderedDict(conv=conv, bn=BatchNorm2d(out_channels), act=nn.ReLU(inplace=True)))


@register_attention(in_root=False)
class SK(nn.Module):
    """3x3 convolutions of growing dilation, mixed by a softmax between them per channel; in a config ``scsa_mm.SK``.

    It replaces the features instead of scaling them. The paper's SK[2, 32, 16] by default; what the SCSA paper's code
    compares with is ``groups=1, min_channels=1``. timm's SelectiveKernel can be set to the same function, but its
    norm of the pooled vector refuses a batch of one image in training. Here such a vector is normalised with the
    running statistics, as is every map of one value a channel.

    Args:
        in_channels: Channels C of the input; a multiple of ``groups``.
        num_branches: Convolutions M; the i-th has dilation i.
        groups: Channel groups G of the convolutions.
        reduction: Ratio of C to the hidden channels, h = max(C // reduction, min_channels).
        min_channels: Least number of hidden channels.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1. In training, the norm of the pooled
        vector has B values a channel: with two or three images its statistics are mostly noise.

    Cost:
        M (9 C^2 / G + 2 C) + (1 + M) C h + 2 h parameters.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if C is not a multiple of ``groups`` (the message lists those to choose from), or a count is
            less than 1.
    """

    _abbr_ = 'sk'

    def __init__(
        self,
        in_channels: int,
        num_branches: int = 2,
        groups: int = 32,
        reduction: int = 16,
        min_channels: int = 32,
    ) -> None:
        super().__init__()
        check_positive_int('SK', 'in_channels', in_channels)
        check_positive_int('SK', 'num_branches', num_branches)
        check_positive_int('SK', 'groups', groups)
        check_positive_int('SK', 'reduction', reduction)
        check_positive_int('SK', 'min_channels', min_channels)
        check_divisible('SK', in_channels, groups, 'groups')
        hidden = max(in_channels // reduction, min_channels)
        self.num_branches = num_branches
        self.conv = nn.ModuleList(
            _conv_norm(in_channels, in_channels, 3, dilation, groups) for dilation in range(1, num_branches + 1)
        )
        self.fc = nn.Sequential(
            _conv_norm(in_channels, hidden, 1, 1, 1), nn.Conv2d(hidden, num_branches * in_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [conv(x) for conv in self.conv]
        # The mean of the sum, without a full-size sum.
        pooled = sum(f.mean((2, 3), keepdim=True) for f in features)
        weights = self.fc(pooled).unflatten(1, (self.num_branches, x.shape[1])).softmax(1).to(x.dtype)
        return functools.reduce(torch.add, (f.to(x.dtype) * weights[:, i] for i, f in enumerate(features)))
