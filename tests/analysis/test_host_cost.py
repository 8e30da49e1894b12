"""The host's cost of a step, where there is no GPU."""

import pytest
import torch

from scsa_mm.analysis import host_cost
from scsa_mm.attention import EMA, SCSA
from scsa_mm.ops import launch

pytest.importorskip('timm')
triton_jit = pytest.importorskip('triton.runtime.jit')
CPU = torch.device('cpu')


def test_all_but_the_kernels_run(monkeypatch):
    """Each launch comes to the end of its way; the way through Triton, which would need a GPU, is not taken."""
    ended = []
    stub = (lambda *args: ended.append(args), 0, (4, 1, 0))
    monkeypatch.setattr(host_cost._AnyVariant, 'get', lambda self, key: stub)
    monkeypatch.setattr(host_cost, 'NO_DEVICE', -1000)  # where no launch is prepared yet
    monkeypatch.setattr(triton_jit.JITFunction, 'run', lambda *args, **kwargs: pytest.fail('Triton launches'))
    x = torch.randn(host_cost.SHAPE, requires_grad=True)
    for module in SCSA(64), EMA(64):
        ended.clear()
        with host_cost.without_kernels():
            assert module.backend_for(x) == 'triton'
            y = module(x)
            forward = len(ended)
            y.sum().backward()
        assert 3 < forward < len(ended)
        assert all(p.grad is not None for p in (x, *module.parameters()))
        assert module.backend_for(x).startswith('cpp') and launch._compiled == {}


def test_rows():
    done = []
    rows = host_cost.measure(CPU, 2, lambda: done.append(1))
    assert len(done) == host_cost.WARM_UP + 2
    assert [row['module'] for row in rows] == ['SE (timm)', 'SCSA', 'EMA'] and rows[0]['ratio'] == 1
    for row in rows:
        assert row['q25_us'] <= row['median_us'] <= row['q75_us']
        assert row['ratio'] == pytest.approx(row['median_us'] / rows[0]['median_us'])
