"""Layers as the operators take them."""

from torch import nn

from ..ops.arithmetic import Affine


def affine(layer: nn.Module) -> Affine:
    return Affine(layer.weight, layer.bias)
