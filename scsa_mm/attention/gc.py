"""GC: global context.

Paper: GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, https://arxiv.org/abs/1904.11492.
Computed by mmcv.
"""

from ..registry import register_attention
from ._adapter import Adapter, load_class
from ._checks import check_reduction


@register_attention(in_root=False)
class GC(Adapter):
    """Adds to every position a vector from the attention-weighted mean of the map; in a config ``scsa_mm.GC``.

    mmcv's ContextBlock with attention pooling and addition, the paper's block. It starts as the identity.

    Args:
        in_channels: Channels C of the input.
        reduction: Ratio of C to the hidden channels, h = C // reduction.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1. The positions must be evenly spaced in
        memory: contiguous or channels last, but not a crop of a larger map (RuntimeError).

    Cost:
        2 C h + 2 C + 3 h + 1 parameters.

    Raises:
        ImportError: if mmcv does not import.
        TypeError: if a count is not an int.
        ValueError: if ``reduction`` leaves no hidden channel.
    """

    _abbr_ = 'gc'

    def __init__(self, in_channels: int, reduction: int = 16) -> None:
        check_reduction('GC', in_channels, reduction)
        layer = load_class('GC', 'mmcv.cnn.bricks', 'ContextBlock')
        # mmcv cuts C * ratio to an int: half a channel more keeps rounding away from the edge.
        super().__init__(layer(in_channels, ratio=(in_channels // reduction + 0.5) / in_channels))

    def init_weights(self) -> None:
        """Restore the identity, which a host's own initialisation of its convolutions would undo."""
        self.layer.reset_parameters()
