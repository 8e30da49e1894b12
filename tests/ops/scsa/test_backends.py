"""The lean and the C++ form of SCSA against the plain one; the modules meet the published numbers in test_golden.py."""

import pytest
import torch

from scsa_mm.ops.scsa import OPERATOR, Options
from tests.ops.exactness import FORMATS, error_ratios, results
from tests.ops.scsa.cases import CASES, draw_case

BACKENDS = ['lean', 'cpp']
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('case', CASES)
def test_equals_the_reference_in_float64(case, backend, memory_format):
    x, grad, flat = draw_case(case)(0)
    options = CASES[case][-1]
    x = x.contiguous(memory_format=FORMATS[memory_format])
    exact = results(OPERATOR, 'reference', x, grad, flat, options)
    found = results(OPERATOR, backend, x, grad, flat, options)
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10, msg=lambda m, name=name: f'{name}: {m}')


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('case', CASES)
def test_is_as_exact_as_the_reference(case, backend, dtype):
    memory_format = 'channels_last' if case in ('odd', 'unit') else 'contiguous'
    ratios = error_ratios(OPERATOR, backend, draw_case(case), CASES[case][-1], dtype, memory_format)
    assert all(ratio <= 1.5 for ratio in ratios.values()), ratios  # max() would overlook a NaN


@pytest.mark.parametrize('backend', BACKENDS)
def test_writes_everything_that_it_allocates(backend, monkeypatch):
    """Fresh memory is often zero by chance."""
    fill = {name: getattr(torch, name) for name in ('empty', 'empty_like')}
    for name, empty in fill.items():
        monkeypatch.setattr(torch, name, lambda *a, _empty=empty, **k: _empty(*a, **k).fill_(float('nan')))
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, 'new_empty', lambda t, *a, **k: new_empty(t, *a, **k).fill_(float('nan')))
    x, grad, flat = draw_case('odd')(0)
    for name, value in results(OPERATOR, backend, x, grad, flat, Options()).items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize('backend', BACKENDS)
def test_the_same_bits_from_run_to_run_and_for_any_number_of_threads(backend):
    x, grad, flat = (t if isinstance(t, list) else t.float() for t in draw_case('heads-and-biases')(0))
    flat = [t.float() for t in flat]
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (2, 2, 1, 3):
            if backend == 'lean' and threads != 2:
                continue  # PyTorch's own operations do not promise that
            torch.set_num_threads(threads)
            runs.append(results(OPERATOR, backend, x, grad, flat, CASES['heads-and-biases'][-1]))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(other[name], value), name


def test_infinities_and_nans_come_through():
    """What AMP's loss scaling looks for."""
    x, grad, flat = draw_case('odd')(0)
    grad[1, 3, 4, 5] = float('inf')
    x[2, 7, 1, 1] = float('nan')
    found = results(OPERATOR, 'cpp', x.float(), grad.float(), [t if t is None else t.float() for t in flat], Options())
    assert found['y'][2, 7].isnan().all()
    assert not found['grad_x'][1, 3].isfinite().any()
    assert found['y'][0].isfinite().all()


def test_large_values_do_not_overflow_in_half_precision():
    """Activations of a detector under AMP; queries times keys pass 65504 here."""
    x, grad, flat = draw_case('many-positions')(0)
    x *= 300
    exact = results(OPERATOR, 'reference', x, grad, flat, Options())
    found = results(OPERATOR, 'cpp', x.half(), grad.half(), [t if t is None else t.half() for t in flat], Options())
    error = (found['y'] - exact['y']).abs().max() / exact['y'].abs().max()
    assert error < 0.02
