"""SE: squeeze and excitation.

Paper: Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507. Computed by timm.
"""

from ..registry import register_attention
from ._adapter import Adapter, load_class
from ._checks import check_reduction


@register_attention(in_root=False)
class SE(Adapter):
    """One gate per channel from two fully connected layers on the mean of the map; in a config ``scsa_mm.SE``.

    timm's SEModule, without biases as in the paper's models. A published weight of a linear layer, (out, in), is
    (out, in, 1, 1) here.

    Args:
        in_channels: Channels C of the input.
        reduction: Ratio of C to the hidden channels, h = C // reduction.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Cost:
        2 C h parameters.

    Raises:
        ImportError: if timm does not import.
        TypeError: if a count is not an int.
        ValueError: if ``reduction`` leaves no hidden channel.
    """

    _abbr_ = 'se'

    def __init__(self, in_channels: int, reduction: int = 16) -> None:
        check_reduction('SE', in_channels, reduction)
        layer = load_class('SE', 'timm.layers', 'SEModule')
        super().__init__(layer(in_channels, rd_channels=in_channels // reduction, bias=False))
