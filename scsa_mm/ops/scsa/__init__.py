"""Spatial and channel synergistic attention (arXiv 2407.05128)."""

from ..dispatch import Operator
from .arguments import Options, Weights, flatten, unflatten
from .reference import channel_gate, scsa, spatial_gates

OPERATOR = Operator('SCSA', __name__, scsa, flatten, unflatten)

__all__ = ['OPERATOR', 'Options', 'Weights', 'channel_gate', 'spatial_gates']
