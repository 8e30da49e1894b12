"""Layers as the operators take them."""

from torch import nn

from ..ops.arithmetic import Affine


def affine(layer: nn.Module) -> Affine:
    own = layer._parameters  # at once, where ``layer.weight`` goes through Python to find it
    if 'weight' in own and 'bias' in own:
        return Affine(own['weight'], own['bias'])
    return Affine(layer.weight, layer.bias)  # as of a layer that computes its weight
