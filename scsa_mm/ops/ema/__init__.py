"""Efficient multi-scale attention (arXiv 2305.13563)."""

from ..dispatch import Operator
from .arguments import Options, Weights, flatten, unflatten
from .reference import ema

OPERATOR = Operator('EMA', __name__, ema, flatten, unflatten)

__all__ = ['OPERATOR', 'Options', 'Weights']
