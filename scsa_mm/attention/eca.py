"""ECA: efficient channel attention.

Paper: ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks, https://arxiv.org/abs/1910.03151.
Computed by timm.
"""

from ..registry import register_attention
from ._adapter import Adapter, load_class
from ._checks import check_kernel_size, check_positive_int


@register_attention(in_root=False)
class ECA(Adapter):
    """One gate per channel from a 1-D convolution over the means of neighbouring channels; ``scsa_mm.ECA``.

    timm's EcaModule.

    Args:
        in_channels: Channels C of the input.
        kernel_size: Channels k that a gate sees; odd. By default the paper's, from (log2(C) + 1) / 2 to the next odd
            number, and at least 3. The comparison in the SCSA paper's code has 1 below 96 channels and 3 from there.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; B, H, W >= 1 (an empty batch raises RuntimeError).

    Cost:
        k parameters.

    Raises:
        ImportError: if timm does not import.
        TypeError: if a count is not an int.
        ValueError: if ``kernel_size`` is even or less than 1.
    """

    _abbr_ = 'eca'

    def __init__(self, in_channels: int, kernel_size: int | None = None) -> None:
        check_positive_int('ECA', 'in_channels', in_channels)
        layer = load_class('ECA', 'timm.layers', 'EcaModule')
        if kernel_size is None:
            super().__init__(layer(in_channels))
            return
        check_kernel_size('ECA', kernel_size)
        # Given the channels, timm would choose the kernel itself.
        super().__init__(layer(None, kernel_size=kernel_size))
