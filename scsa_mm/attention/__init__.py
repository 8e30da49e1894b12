"""The attention modules that a config names."""

from .ema import EMA
from .scsa import PCSA, SCSA, SMSA

__all__ = ['EMA', 'PCSA', 'SCSA', 'SMSA']
