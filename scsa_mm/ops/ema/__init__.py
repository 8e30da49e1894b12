"""Efficient multi-scale attention (arXiv 2305.13563)."""

from .reference import ema

__all__ = ['ema']
