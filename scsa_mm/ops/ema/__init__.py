"""Efficient multi-scale attention (arXiv 2305.13563)."""

from ..compiled import define
from ..dispatch import Operator
from .arguments import Options, Weights, flatten, unflatten
from .reference import ema

OPERATOR = Operator('EMA', __name__, ema, Options, flatten, unflatten)
define(OPERATOR)

__all__ = ['OPERATOR', 'Options', 'Weights']
