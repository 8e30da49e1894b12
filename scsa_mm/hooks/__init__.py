"""Hooks that a config can name, in the scope ``scsa_mm``."""

from .random_state import RandomStateHook

__all__ = ['RandomStateHook']
