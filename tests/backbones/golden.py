"""Feature maps of the released backbones with their state dicts (tests/data/golden_backbones)."""

import json
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / 'data' / 'golden_backbones'
CASES = json.loads((FOLDER / 'index.json').read_text())


def case(module, depth=None):
    return next(c for c in CASES if c['module'] == module and c['kwargs'].get('depth') == depth)


def arrays(case):
    return np.load(FOLDER / case['file'])


def released_state_dict(case, prefix=''):
    data = arrays(case)
    return {
        prefix + name.removeprefix('param/'): torch.from_numpy(data[name]) for name in data if name.startswith('param/')
    }
