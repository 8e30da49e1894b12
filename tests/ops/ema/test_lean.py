"""The lean form of EMA against the plain one and the published numbers."""

import pytest
import torch

from scsa_mm.ops.ema import OPERATOR, Options, lean
from tests.ops.ema import cases
from tests.ops.ema.cases import CASES, DTYPES, draw_case
from tests.ops.exactness import FORMATS, results


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('case', cases.golden_cases(), ids=lambda case: case['file'])
def test_equals_the_published_module(case, memory_format):
    cases.assert_equal_to_the_published('lean', case, memory_format)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('case', CASES)
def test_equals_the_reference_in_float64(case, memory_format):
    cases.assert_equal_to_the_reference('lean', case, memory_format)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('case', CASES)
def test_is_as_exact_as_the_reference(case, dtype):
    cases.assert_as_exact_as_the_reference('lean', case, dtype)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('case', ['two', 'two-of-whole-vectors'])
def test_writes_everything_that_it_allocates(case, memory_format, monkeypatch):
    cases.nan_in_fresh_memory(monkeypatch)
    cases.assert_all_written('lean', case, memory_format)


def test_the_same_bits_from_run_to_run():
    x, grad, flat = draw_case('sixteen')(0)
    x, grad, flat = x.float(), grad.float(), [t.float() for t in flat]
    first, second = (results(OPERATOR, 'lean', x, grad, flat, Options(2)) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(second[name], value), name


def test_a_bias_may_be_missing():
    x, grad, flat = draw_case('two')(0)
    zero = [*flat]
    zero[1], zero[5] = torch.zeros_like(flat[1]), torch.zeros_like(flat[5])
    none = [*flat]
    none[1] = none[5] = None
    exact = results(OPERATOR, 'reference', x, grad, zero, Options(3))
    found = results(OPERATOR, 'lean', x, grad, none, Options(3))
    assert set(found) == set(exact) - {'grad 1', 'grad 5'}
    for name, value in found.items():
        torch.testing.assert_close(value, exact[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    'shape, most', [((2, 64, 40, 56), 0.6), ((2, 128, 40, 56), 0.35), ((2, 512, 25, 42), 0.15)], ids=str
)
def test_keeps_strips_and_one_map_a_group(shape, most):
    assert cases.kept_maps(lean, shape, Options(32)) < most


def test_weights_that_do_not_fit_are_left_to_the_reference():
    x, _, flat = draw_case('two')(0)
    assert lean.unsupported(x, OPERATOR.unflatten(flat), Options(3)) == ''
    assert '2 groups' in lean.unsupported(x, OPERATOR.unflatten(flat), Options(2))
    flat[0] = flat[0][:1]
    assert 'weights of' in lean.unsupported(x, OPERATOR.unflatten(flat), Options(3))
