"""Putting attention into built models."""

from .insertion import Insertion, inserted
from .plugins import add_plugins, plan_plugins

__all__ = ['Insertion', 'add_plugins', 'inserted', 'plan_plugins']
