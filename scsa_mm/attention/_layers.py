"""Layers as the operators take them."""

from collections.abc import Iterable

from torch import Tensor, nn

from ..ops.arithmetic import Affine


def _pair(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    own = layer._parameters  # at once, where ``layer.weight`` goes through Python to find it
    if 'weight' in own and 'bias' in own:
        return own['weight'], own['bias']
    return layer.weight, layer.bias  # as of a layer that computes its weight


def affine(layer: nn.Module) -> Affine:
    return Affine(*_pair(layer))


def parameters_of(layers: Iterable[nn.Module]) -> list[Tensor | None]:
    """Weight and bias of each layer, one after the other."""
    found: list[Tensor | None] = []
    for layer in layers:
        found += _pair(layer)
    return found
