"""What the backends of SCSA are tried on."""

import json
from pathlib import Path

import numpy as np
import torch

from scsa_mm.ops.scsa import Options

GOLDEN = Path(__file__).parents[2] / 'data' / 'golden'
CASES = {
    'of-one-number': ((1, 4, 1, 1), (3, 5, 7, 9), False, Options()),
    'of-one-row': ((1, 8, 1, 13), (3, 5, 7, 9), False, Options()),
    'of-one-column': ((2, 8, 13, 1), (3, 5, 7, 9), True, Options()),
    'smaller-than-the-window': ((2, 12, 5, 30), (3, 5, 7, 9), False, Options()),
    'odd': ((3, 64, 23, 17), (3, 5, 7, 9), False, Options()),
    'many-positions': ((1, 20, 43, 51), (3, 5, 7, 9), False, Options()),
    'heads-and-biases': ((2, 24, 15, 22), (1, 3, 11, 5), True, Options(num_heads=6)),
    'window-4': ((2, 16, 19, 10), (3, 5, 7, 9), False, Options(window_size=4)),
    'whole-map': ((2, 16, 9, 11), (3, 5, 7, 9), False, Options(window_size=-1)),
    'unit': ((2, 16, 16, 15), (3, 5, 7, 9), True, Options(num_heads=2, unit=True)),
}


def draw_case(name):
    """``seed -> (x, grad, flat weights)`` in float64, as :mod:`tests.ops.exactness` wants it."""
    shape, kernels, qkv_bias, _ = CASES[name]
    channels = shape[1]

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)

        def normal(*size, mean=0.0, std=1.0):
            return mean + std * torch.randn(size, generator=generator, dtype=torch.float64)

        flat = []
        for kernel in kernels:
            flat += [normal(channels // 4, 1, kernel, std=kernel**-0.5), normal(channels // 4)]
        for _ in range(3):
            flat += [normal(channels, mean=1, std=0.5), normal(channels, std=0.5)]
        for _ in range(3):
            flat += [normal(channels, 1, 1, 1), normal(channels) if qkv_bias else None]
        return normal(*shape, mean=0.5), normal(*shape), flat

    return draw


def golden_cases():
    """The index entries of the published SCSA."""
    return [case for case in json.loads((GOLDEN / 'index.json').read_text()) if case['module'] == 'SCSA']


def golden_arrays(case):
    return np.load(GOLDEN / case['file'])
