"""CBAM: convolutional block attention.

Paper: CBAM: Convolutional Block Attention Module, https://arxiv.org/abs/1807.06521. Source of the parameter names and
of the least number of hidden channels: https://github.com/HZAI-ZJNU/SCSA (Apache-2.0).
"""

import torch
from torch import Tensor, nn

from ..registry import register_attention
from ._checks import check_kernel_size, check_positive_int


@register_attention(in_root=False)
class CBAM(nn.Module):
    """A gate per channel, then a gate per position, each from means and maxima; in a config ``scsa_mm.CBAM``.

    The paper's equations. timm's CbamModule computes another function: it normalises the map of the second gate by
    batch statistics.

    Args:
        in_channels: Channels C of the input.
        reduction: Ratio of C to the hidden channels, h = max(C // reduction, min_channels).
        kernel_size: Side k of the convolution that makes the gate per position; odd.
        min_channels: Least number of hidden channels.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Cost:
        2 C h + 2 k^2 parameters.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if ``kernel_size`` is even, or a count less than 1.
    """

    _abbr_ = 'cbam'

    def __init__(self, in_channels: int, reduction: int = 16, kernel_size: int = 7, min_channels: int = 8) -> None:
        super().__init__()
        for name, value in (('in_channels', in_channels), ('reduction', reduction), ('min_channels', min_channels)):
            check_positive_int('CBAM', name, value)
        check_kernel_size('CBAM', kernel_size)
        hidden = max(in_channels // reduction, min_channels)
        self.mlp_chans = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, in_channels, 1, bias=False)
        )
        self.mlp_spaces = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = self.mlp_chans(x.mean((2, 3), keepdim=True)) + self.mlp_chans(x.amax((2, 3), keepdim=True))
        x = x * channels.sigmoid().to(x.dtype)
        positions = self.mlp_spaces(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1))
        return x * positions.sigmoid().to(x.dtype)
