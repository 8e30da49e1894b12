"""ESE: effective squeeze and excitation.

Paper: CenterMask: Real-Time Anchor-Free Instance Segmentation, https://arxiv.org/abs/1911.06667. Computed by timm.
"""

from ..registry import register_attention
from ._adapter import Adapter, load_class
from ._checks import check_positive_int


@register_attention(in_root=False)
class ESE(Adapter):
    """SE with one fully connected layer, which loses no channels, and a hard sigmoid; in a config ``scsa_mm.ESE``.

    timm's EffectiveSEModule.

    Args:
        in_channels: Channels C of the input.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Cost:
        C^2 + C parameters.

    Raises:
        ImportError: if timm does not import.
        TypeError: if ``in_channels`` is not an int.
        ValueError: if ``in_channels`` is less than 1.
    """

    _abbr_ = 'ese'

    def __init__(self, in_channels: int) -> None:
        check_positive_int('ESE', 'in_channels', in_channels)
        layer = load_class('ESE', 'timm.layers', 'EffectiveSEModule')
        super().__init__(layer(in_channels))
