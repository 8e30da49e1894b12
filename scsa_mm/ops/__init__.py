"""The arithmetic of the attention modules, as functions of tensors. Imports torch and mmengine only."""

from .dispatch import BACKENDS, use_backend

__all__ = ['BACKENDS', 'use_backend']
