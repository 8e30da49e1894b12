"""The modules against outputs and gradients of the published ones, computed in float64 (tests/data/golden)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scsa_mm.registry import MODELS

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'
CASES = json.loads((GOLDEN / 'index.json').read_text())
# Keyword arguments of the published constructors, where ours are named otherwise; None: not ours to choose.
OURS = {
    'SCSA': {'head_num': 'num_heads', 'group_kernel_sizes': 'kernel_sizes', 'gate_layer': 'gate'},
    'EMA': {'factor': 'groups'},
    'SA': {'group_num': 'groups'},
    'FCA': {'freq_sel_method': None},
}
# What the published constructor chose by itself.
CHOSEN = {'ECA': {'kernel_size': 1}, 'FCA': {'num_freq': 16}}
# Where another package computes: its names for the published ones.
ADAPTED = {
    'SE': {'fc.0.weight': 'layer.fc1.weight', 'fc.2.weight': 'layer.fc2.weight'},
    'ECA': {'conv.weight': 'layer.conv.weight'},
}
TOLERANCE = 1e-9


def build(case):
    arrays = np.load(GOLDEN / case['file'])
    name = case['module']
    names = OURS.get(name, {})
    kwargs = {names.get(key, key): value for key, value in case['kwargs'].items() if names.get(key, key)}
    module = MODELS.get(name)(case['input'][1], **kwargs, **CHOSEN.get(name, {}))
    published = {k.removeprefix('param/'): torch.from_numpy(arrays[k]) for k in arrays if k.startswith('param/')}
    adapted = ADAPTED.get(name, {})
    shapes = {key: value.shape for key, value in module.state_dict().items()}
    state = {adapted.get(key, key): value for key, value in published.items()}
    if adapted:  # a linear layer may be a 1x1 convolution there
        state = {key: value.reshape(shapes[key]) for key, value in state.items()}
    module.load_state_dict(state, strict=True)
    return module.double().eval(), arrays, {ours: theirs for theirs, ours in adapted.items()}


@pytest.mark.parametrize('channels_last', [False, True], ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: Path(case['file']).stem)
def test_equals_the_published_module(case, channels_last):
    module, arrays, published = build(case)
    x = torch.from_numpy(arrays['x']).double()
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    y = module(x)
    y.backward(torch.from_numpy(arrays['grad_y']).double())

    found = {'y': y.detach(), 'grad_x': x.grad}
    found.update({f'grad/{published.get(name, name)}': p.grad for name, p in module.named_parameters()})
    names = {k for k in arrays if k in ('y', 'grad_x') or k.startswith('grad/')}
    assert set(found) == names
    for name, value in found.items():
        np.testing.assert_allclose(
            value.reshape(arrays[name].shape).numpy(), arrays[name], rtol=0, atol=TOLERANCE, err_msg=name
        )


def test_every_golden_case_is_here():
    assert {Path(c['file']).name for c in CASES} == {p.name for p in GOLDEN.glob('*.npz')}
    assert len(CASES) == 20


def test_fca_makes_the_published_filters():
    case = next(c for c in CASES if c['module'] == 'FCA')
    filters = MODELS.get('FCA')(32).state_dict()['dct_layer.weight']
    np.testing.assert_allclose(filters, np.load(GOLDEN / case['file'])['param/dct_layer.weight'], rtol=0, atol=1e-7)
