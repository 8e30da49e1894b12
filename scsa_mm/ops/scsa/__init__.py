"""Spatial and channel synergistic attention (arXiv 2407.05128)."""

from .reference import channel_gate, spatial_gates

__all__ = ['channel_gate', 'spatial_gates']
