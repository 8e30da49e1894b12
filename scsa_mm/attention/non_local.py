"""NonLocal: self-attention between all positions of a map.

Paper: Non-local Neural Networks, https://arxiv.org/abs/1711.07971. Computed by mmcv.
"""

from ..registry import register_attention
from ._adapter import Adapter, load_class
from ._checks import check_choice, check_reduction

MODES = ('embedded_gaussian', 'dot_product')


@register_attention(in_root=False)
class NonLocal(Adapter):
    """Adds to every position a weighted sum over all positions; in a config ``scsa_mm.NonLocal``.

    mmcv's NonLocal2d, with scaled products. It starts as the identity.

    Args:
        in_channels: Channels C of the input.
        reduction: Ratio of C to the hidden channels, h = C // reduction.
        mode: ``'embedded_gaussian'`` (softmax over the positions) or ``'dot_product'`` (divided by their number).

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; B, H, W >= 1 (an empty batch raises
        RuntimeError).

    Cost:
        4 C h + C + 3 h parameters. Memory for (H W)^2 weights an image, 1 GB in float32 at 128x128: meant for the
        small maps of the last stages.

    Raises:
        ImportError: if mmcv does not import.
        TypeError: if a count is not an int.
        ValueError: if ``reduction`` leaves no hidden channel, or the mode is not as above.
    """

    _abbr_ = 'non_local'

    def __init__(self, in_channels: int, reduction: int = 2, mode: str = 'embedded_gaussian') -> None:
        check_reduction('NonLocal', in_channels, reduction)
        check_choice('NonLocal', 'mode', mode, MODES)
        layer = load_class('NonLocal', 'mmcv.cnn.bricks', 'NonLocal2d')
        super().__init__(layer(in_channels, reduction=reduction, mode=mode))

    def init_weights(self) -> None:
        """Restore the identity, which a host's own initialisation of its convolutions would undo."""
        self.layer.init_weights()
