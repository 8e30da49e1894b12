"""Datasets: so far the generator of miniature ones, :mod:`scsa_mm.datasets.miniature`."""
