"""The compiled form of EMA against the plain one and the published numbers."""

import pytest
import torch

from scsa_mm.ops.ema import OPERATOR, Options, cpp
from tests.ops.ema import cases
from tests.ops.ema.cases import CASES, DTYPES, draw_case
from tests.ops.exactness import FORMATS, results


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('case', cases.golden_cases(), ids=lambda case: case['file'])
def test_equals_the_published_module(case, memory_format):
    cases.assert_equal_to_the_published('cpp', case, memory_format)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('case', CASES)
def test_equals_the_reference_in_float64(case, memory_format):
    cases.assert_equal_to_the_reference('cpp', case, memory_format)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('case', CASES)
def test_is_as_exact_as_the_reference(case, dtype):
    cases.assert_as_exact_as_the_reference('cpp', case, dtype)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('case', ['two', 'two-of-whole-vectors'])
def test_writes_everything_that_it_allocates(case, memory_format, monkeypatch):
    cases.nan_in_fresh_memory(monkeypatch)
    cases.assert_all_written('cpp', case, memory_format)


@pytest.mark.parametrize('case', ['two', 'sixteen', 'two-of-whole-vectors'])
def test_the_same_bits_from_run_to_run_and_for_any_number_of_threads(case):
    x, grad, flat = draw_case(case)(0)
    x, grad, flat = x.float(), grad.float(), [t.float() for t in flat]
    runs = []
    for n in (2, 2, 1, 3):
        with cases.threads(n):
            runs.append(results(OPERATOR, 'cpp', x, grad, flat, CASES[case][1]))
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(other[name], value), name


@pytest.mark.parametrize('case', ['two', 'two-of-whole-vectors'])
def test_nan_and_infinity_stay_in_their_group(case):
    x, grad, flat = draw_case(case)(0)
    x, grad, flat = x.float(), grad.float(), [t.float() for t in flat]
    c = x.shape[1] // CASES[case][1].groups
    good = results(OPERATOR, 'cpp', x, grad, flat, CASES[case][1])
    for value in (float('nan'), float('inf')):
        x[0, 0, 3, 5] = value
        with cases.threads(1):  # the memory of one thread serves all groups
            bad = results(OPERATOR, 'cpp', x, grad, flat, CASES[case][1])
        for name in ('y', 'grad_x'):
            assert bad[name][0, :c].isnan().any()
            assert torch.equal(bad[name][0, c:], good[name][0, c:])


def test_values_with_a_mean_far_from_zero():
    """Where sums of squares would lose the variance."""
    x, grad, flat = (t if isinstance(t, list) else t.float() for t in draw_case('two')(0))
    x += 300
    flat = [t.float() for t in flat]
    flat[0] *= 1e-3  # so that the gates do not close
    flat[4] *= 1e-3
    exact = results(OPERATOR, 'reference', x.double(), grad.double(), [t.double() for t in flat], Options(3))
    plain, found = (results(OPERATOR, b, x, grad, flat, Options(3)) for b in ('reference', 'cpp'))
    for name, value in exact.items():
        error = (found[name] - value).norm() / value.norm()
        assert error <= 1.5 * (plain[name] - value).norm() / value.norm() + 1e-6, name


def test_a_bias_may_be_missing():
    x, grad, flat = draw_case('two')(0)
    zero = [*flat]
    zero[1], zero[5] = torch.zeros_like(flat[1]), torch.zeros_like(flat[5])
    none = [*flat]
    none[1] = none[5] = None
    exact = results(OPERATOR, 'reference', x, grad, zero, Options(3))
    found = results(OPERATOR, 'cpp', x, grad, none, Options(3))
    assert set(found) == set(exact) - {'grad 1', 'grad 5'}
    for name, value in found.items():
        torch.testing.assert_close(value, exact[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    'shape, most', [((2, 64, 40, 56), 0.06), ((2, 128, 40, 56), 0.31), ((2, 512, 25, 42), 0.15)], ids=str
)
def test_keeps_strips_and_at_most_one_map_a_group(shape, most):
    assert cases.kept_maps(cpp, shape, Options(32)) < most


def test_weights_that_do_not_fit_are_left_to_the_reference():
    x, _, flat = draw_case('two')(0)
    assert cpp.unsupported(x, OPERATOR.unflatten(flat), Options(3)) == ''
    assert '2 groups' in cpp.unsupported(x, OPERATOR.unflatten(flat), Options(2))
    flat[0] = flat[0][:1]
    assert 'weights of' in cpp.unsupported(x, OPERATOR.unflatten(flat), Options(3))
