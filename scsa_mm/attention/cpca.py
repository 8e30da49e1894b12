"""CPCA: channel prior convolutional attention.

Paper: Channel Prior Convolutional Attention for Medical Image Segmentation, https://arxiv.org/abs/2306.05196. Source of
the parameter names: https://github.com/HZAI-ZJNU/SCSA (Apache-2.0).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ..registry import register_attention
from ._checks import check_reduction

STRIPS = (7, 11, 21)


class _ChannelGate(nn.Module):
    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(in_channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, in_channels, 1)

    def _gate(self, pooled: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(pooled))).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self._gate(x.mean((2, 3), keepdim=True)) + self._gate(x.amax((2, 3), keepdim=True))


@register_attention(in_root=False)
class CPCA(nn.Module):
    """A gate per channel, then a weight per channel and position from depthwise strip convolutions; ``scsa_mm.CPCA``.

    Three 1x1 convolutions, at the start, on the weights and at the end, are one and the same layer, as published.
    The output is no scaled input: there is no identity to start from.

    Args:
        in_channels: Channels C of the input.
        reduction: Ratio of C to the hidden channels of the first gate, h = C // reduction.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Cost:
        C^2 + 2 C h + 112 C + h parameters.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if ``reduction`` leaves no hidden channel.
    """

    _abbr_ = 'cpca'

    def __init__(self, in_channels: int, reduction: int = 16) -> None:
        super().__init__()
        check_reduction('CPCA', in_channels, reduction)
        self.conv = nn.Conv2d(in_channels, in_channels, 1)
        self.ca = _ChannelGate(in_channels, in_channels // reduction)
        self.dwc5_5 = nn.Conv2d(in_channels, in_channels, 5, padding=2, groups=in_channels)
        for k in STRIPS:
            for h, w in ((1, k), (k, 1)):
                layer = nn.Conv2d(in_channels, in_channels, (h, w), padding=(h // 2, w // 2), groups=in_channels)
                self.add_module(f'dwc{h}_{w}', layer)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv(x))
        y = y * self.ca(y)
        near = total = self.dwc5_5(y)
        for k in STRIPS:
            total = total + getattr(self, f'dwc{k}_1')(getattr(self, f'dwc1_{k}')(near))
        return self.conv(y * self.conv(total)).to(x.dtype)
