"""EMA: efficient multi-scale attention.

Paper: Efficient Multi-Scale Attention Module with Cross-Spatial Learning, https://arxiv.org/abs/2305.13563.
Source of the parameter names: https://github.com/YOLOonMe/EMA-attention-module.
"""

from torch import Tensor, nn

from ..ops.dispatch import check_backend, choose
from ..ops.ema import OPERATOR, Options, Weights
from ..ops.function import run
from ..registry import register_attention
from ._checks import check_divisible, check_positive_int
from ._layers import affine


@register_attention(in_root=False)
class EMA(nn.Module):
    """Efficient multi-scale attention (section 3); in a config always ``scsa_mm.EMA``.

    Equal to the released module, with the same parameter names; its ``factor`` is ``groups`` here.

    Args:
        in_channels: Channels C of the input; a multiple of ``groups``.
        groups: Channel groups that share all the weights; c = C / groups channels each.
        identity_init: Start as the identity, for a host with pretrained weights (at the published start the sigmoid
            about halves the features). It changes two things. The last gate is doubled, so that a logit of 0 means
            1, now and after training; and the norm and the 3x3 convolution start at 0. Parameters and their names stay
            the same, but weights trained with one setting do not fit the other.
        backend: What computes it; ``'auto'`` is the fastest that can, see :mod:`scsa_mm.ops.dispatch`.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype; H, W >= 1.

    Cost:
        10 c^2 + 4 c parameters.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if C is not a multiple of ``groups``; the message lists the groups to choose from.
    """

    _abbr_ = 'ema'
    backend = 'auto'  # of modules that were pickled before there was a choice

    def __init__(self, in_channels: int, groups: int = 32, identity_init: bool = False, backend: str = 'auto') -> None:
        super().__init__()
        check_positive_int('EMA', 'in_channels', in_channels)
        check_positive_int('EMA', 'groups', groups)
        check_divisible('EMA', in_channels, groups, 'groups')
        c = in_channels // groups
        self.groups = groups
        self.identity_init = identity_init
        self.backend = check_backend(backend, 'EMA: backend')
        self.conv1x1 = nn.Conv2d(c, c, 1)
        self.gn = nn.GroupNorm(c, c)
        self.conv3x3 = nn.Conv2d(c, c, 3, padding=1)
        self.init_weights()

    def init_weights(self) -> None:
        """Restore the identity, which a host's own initialisation of all its layers would undo (mmengine calls it)."""
        if self.identity_init:
            for layer in (self.gn, self.conv3x3):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return run(OPERATOR, x, *self._arguments(), self.backend)

    def backend_for(self, x: Tensor) -> str:
        """Which backend computes ``x``, and why not a faster one."""
        return str(choose(OPERATOR, x, *self._arguments(), self.backend))

    def _arguments(self) -> tuple[Weights, Options]:
        layers = self._modules
        weights = Weights(affine(layers['conv1x1']), affine(layers['gn']), affine(layers['conv3x3']))
        return weights, Options(self.groups, self.identity_init)
