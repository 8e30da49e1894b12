"""Loops in C++ for the CPU, compiled when they are first needed."""

from .compilation import library

__all__ = ['library']
