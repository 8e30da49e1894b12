"""Layers as the operators take them."""

from collections.abc import Iterable

from torch import Tensor, nn

from ..ops.arithmetic import Affine


def affine(layer: nn.Module) -> Affine:
    own = layer._parameters  # at once, where ``layer.weight`` goes through Python to find it
    if 'weight' in own and 'bias' in own:
        return Affine(own['weight'], own['bias'])
    return Affine(layer.weight, layer.bias)  # as of a layer that computes its weight


def parameters_of(layers: Iterable[nn.Module]) -> list[Tensor | None]:
    """Weight and bias of each layer, one after the other."""
    found: list[Tensor | None] = []
    for layer in layers:
        own = layer._parameters
        if 'weight' in own and 'bias' in own:
            found += own['weight'], own['bias']
        else:
            found += layer.weight, layer.bias
    return found
