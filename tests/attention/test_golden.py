"""The modules against outputs and gradients of the published ones, computed in float64 (tests/data/golden)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scsa_mm.attention import EMA, SCSA

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'
CASES = json.loads((GOLDEN / 'index.json').read_text())
OURS = {'head_num': 'num_heads', 'group_kernel_sizes': 'kernel_sizes', 'gate_layer': 'gate', 'factor': 'groups'}
TOLERANCE = 1e-9


def build(case):
    arrays = np.load(GOLDEN / case['file'])
    kwargs = {OURS.get(name, name): value for name, value in case['kwargs'].items()}
    module = {'SCSA': SCSA, 'EMA': EMA}[case['module']](case['input'][1], **kwargs)
    published = {k.removeprefix('param/'): torch.from_numpy(arrays[k]) for k in arrays if k.startswith('param/')}
    module.load_state_dict(published, strict=True)
    return module.double().eval(), arrays


@pytest.mark.parametrize('channels_last', [False, True], ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: Path(case['file']).stem)
def test_equals_the_published_module(case, channels_last):
    module, arrays = build(case)
    x = torch.from_numpy(arrays['x']).double()
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    y = module(x)
    y.backward(torch.from_numpy(arrays['grad_y']).double())

    found = {'y': y.detach(), 'grad_x': x.grad}
    found.update({f'grad/{name}': p.grad for name, p in module.named_parameters()})
    expected = {k for k in arrays if k in ('y', 'grad_x') or k.startswith('grad/')}
    assert set(found) == expected
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), arrays[name], rtol=0, atol=TOLERANCE, err_msg=name)


def test_every_golden_case_is_here():
    assert {Path(c['file']).name for c in CASES} == {p.name for p in GOLDEN.glob('*.npz')}
    assert len(CASES) == 12
