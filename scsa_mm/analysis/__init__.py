"""Comparing attention modules: what they cost, and what they bring in the same training."""
