"""What EMA is computed from beside the feature map."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from ..arithmetic import Affine, flatten_layers, layers_of


class Weights(NamedTuple):
    """Parameters of EMA for c channels a group.

    Args:
        conv1x1: Weight (c, c, 1, 1) and bias (c,): mixes the strip descriptors of branch 1.
        norm: GroupNorm of branch 1 with one channel a group, (c,) each.
        conv3x3: Weight (c, c, 3, 3) and bias (c,): branch 2.
    """

    conv1x1: Affine
    norm: Affine
    conv3x3: Affine


class Options(NamedTuple):
    """Settings of EMA.

    Args:
        groups: Channel groups that share all the weights; divides C, and c = C / groups.
        unit: Double the last sigmoid, so that a logit of 0 means 1.
    """

    groups: int = 32
    unit: bool = False


def flatten(weights: Weights) -> list[Tensor | None]:
    """All tensors in a fixed order; six."""
    return flatten_layers(weights)


def unflatten(flat: Iterable[Tensor | None]) -> Weights:
    return Weights(*layers_of(flat))
