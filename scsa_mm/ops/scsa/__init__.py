"""Spatial and channel synergistic attention (arXiv 2407.05128)."""

from ..compiled import define
from ..dispatch import Operator
from .arguments import Options, Weights, flatten, unflatten, unusual
from .reference import channel_gate, scsa, spatial_gates

OPERATOR = Operator('SCSA', __name__, scsa, Options, flatten, unflatten, unusual)
define(OPERATOR)

__all__ = ['OPERATOR', 'Options', 'Weights', 'channel_gate', 'spatial_gates']
