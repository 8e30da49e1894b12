"""Which backend runs, and what happens when one cannot."""

import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scsa_mm.attention import EMA, SCSA
from scsa_mm.ops import dispatch, use_backend
from scsa_mm.ops.native import compilation
from scsa_mm.ops.torch_versions import OutOfMemoryError

X = torch.randn(2, 8, 9, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(dispatch, '_failed', {})
    monkeypatch.setattr(dispatch, '_chosen', {})
    monkeypatch.setattr(dispatch, '_logged', set())
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)


@pytest.fixture
def lines(monkeypatch):
    found = []
    monkeypatch.setattr(dispatch, 'print_log', lambda line, **_: found.append(line))
    return found


def chosen(module, x=X):
    return module.backend_for(x).split(' ')[0]


@pytest.mark.parametrize('module', [SCSA(8), EMA(8, groups=4)], ids=['SCSA', 'EMA'])
class TestChoice:
    def test_the_fastest_by_default(self, module):
        assert chosen(module) == 'cpp'

    def test_the_context_manager(self, module):
        with use_backend('lean'):
            assert chosen(module) == 'lean'
            with use_backend('reference'):
                assert chosen(module) == 'reference'
            assert chosen(module) == 'lean'
        assert chosen(module) == 'cpp'

    def test_the_variable(self, module, monkeypatch):
        monkeypatch.setenv(dispatch.VARIABLE, 'lean')
        assert chosen(module) == 'lean'
        with use_backend('reference'):
            assert chosen(module) == 'reference'

    def test_the_argument_comes_before_both(self, module, monkeypatch):
        monkeypatch.setenv(dispatch.VARIABLE, 'reference')
        monkeypatch.setattr(module, 'backend', 'lean')
        with use_backend('reference'):
            assert chosen(module) == 'lean'

    def test_what_cannot_run_is_replaced_and_said_once(self, module, monkeypatch, lines):
        monkeypatch.setattr(module, 'backend', 'triton')
        module(X)
        module(X)
        name = type(module).__name__
        assert lines == [f'{name} on cpu, float32: cpp (triton: x is on cpu)']

    def test_one_line_for_each_dtype(self, module, lines):
        module(X)
        module(X + 1)
        module.double()(X.double())
        module.float()
        name = type(module).__name__
        assert lines == [f'{name} on cpu, {dtype}: cpp' for dtype in ('float32', 'float64')]


def test_a_backend_that_does_not_exist():
    with pytest.raises(ValueError, match=r"^SCSA: backend must be one of 'auto', 'triton', 'cpp', .* got 'cuda'$"):
        SCSA(8, backend='cuda')
    with pytest.raises(ValueError, match='EMA: backend must be one of'):
        EMA(32, backend='')
    with pytest.raises(ValueError, match='^backend must be one of'), use_backend('fast'):
        pass


def test_a_variable_that_names_no_backend(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, 'fast')
    with pytest.raises(ValueError, match='^the variable SCSA_MM_BACKEND must be one of .* got .fast.$'):
        SCSA(8)(X)


@pytest.mark.parametrize(
    'kwargs, backend',
    [
        ({'gate': 'softmax'}, 'lean'),
        ({'down_sample_mode': 'max_pool'}, 'reference'),
        ({'attn_drop': 0.5}, 'reference'),
        ({'window_size': -1}, 'cpp'),
    ],
)
def test_options_that_only_some_can(kwargs, backend):
    module = SCSA(8, **kwargs)
    assert chosen(module) == backend
    if 'attn_drop' in kwargs:
        assert chosen(module.eval()) == 'cpp'


def test_an_input_without_data_takes_plain_operations():
    assert chosen(SCSA(8).to('meta'), X.to('meta')) == 'reference'
    assert chosen(SCSA(8), X[:0]) == 'reference'


def test_without_a_compiler(monkeypatch, lines):
    """As on a machine without g++: lean computes, and one line says why."""
    monkeypatch.setattr(compilation, '_load_once', compilation.functools.cache(compilation._load_once.__wrapped__))
    monkeypatch.setattr('scsa_mm.ops.native.calls.library', compilation.library.__wrapped__)
    monkeypatch.setattr(compilation.shutil, 'which', lambda name: None)
    monkeypatch.delenv('CXX', raising=False)
    why = 'no C++ compiler found (g++, c++ or clang++; CXX names another)'
    module = SCSA(8)
    with use_backend('reference'):
        exact = module(X)
    assert module.backend_for(X) == f'lean (cpp: {why})'
    torch.testing.assert_close(module(X), exact)
    assert lines[1:] == [f'SCSA on cpu, float32: lean (cpp: {why})']


@pytest.mark.parametrize('part', ['forward', 'backward'])
def test_a_backend_that_fails_is_replaced(part, monkeypatch, lines):
    from scsa_mm.ops.scsa import cpp

    def fail(*_):
        raise RuntimeError('no such instruction')

    module = SCSA(8).double()
    x = X.double().requires_grad_()
    with use_backend('reference'):
        (module(x) ** 2).sum().backward()
    expected, x.grad = x.grad, None
    monkeypatch.setattr(cpp, part, fail)
    (module(x) ** 2).sum().backward()
    torch.testing.assert_close(x.grad, expected)
    assert 'SCSA: cpp cannot run here (RuntimeError: no such instruction)' in lines
    assert chosen(module, x) == 'lean'


def fail_at(shapes, error, monkeypatch, part='forward'):
    """Let the C++ backend of SCSA fail at these shapes; returns those at which it was tried."""
    from scsa_mm.ops.scsa import cpp

    tried, run = [], getattr(cpp, part)

    def maybe(*args):
        x = args[0]
        tried.append(tuple(x.shape))
        if tuple(x.shape) in shapes:
            raise error
        return run(*args)

    monkeypatch.setattr(cpp, part, maybe)
    return tried


def test_a_bad_shape_does_not_end_a_backend_for_others(monkeypatch):
    module, good = SCSA(8), X[:, :, :5]
    tried = fail_at({tuple(X.shape)}, RuntimeError('too large'), monkeypatch)
    for x in (X, good, X, good):
        module(x)
    assert tried == [tuple(X.shape), tuple(good.shape), tuple(good.shape)]
    assert module.backend_for(X) == 'lean (cpp: RuntimeError: too large)' and chosen(module, good) == 'cpp'
    assert chosen(SCSA(8, num_heads=2), X) == 'cpp'  # other kernels


def test_one_reason_at_three_shapes_is_none_of_the_shapes(monkeypatch):
    module, bad = SCSA(8), [X, X[:, :, :5], X[:, :, :6]]
    tried = fail_at({tuple(x.shape) for x in bad}, RuntimeError('no such instruction'), monkeypatch)
    for x in bad[:2]:
        module(x)
    for heads in (2, 4):  # no other shape
        SCSA(8, num_heads=heads)(X)
    assert chosen(module, X[:1]) == 'cpp'
    module(bad[2])
    assert len(tried) == 5
    assert chosen(module, X[:1]) == 'lean'
    assert chosen(module.double(), X.double()[:1]) == 'cpp'


def test_reasons_that_differ_are_of_the_shapes(monkeypatch):
    module = SCSA(8)
    for n in (5, 6, 7):
        with monkeypatch.context() as patch:
            fail_at({(2, 8, n, 10)}, RuntimeError(f'needs {n} GiB'), patch)
            module(X[:, :, :n])
    assert chosen(module) == 'cpp' and chosen(module, X[:, :, :5]) == 'lean'


def test_what_cannot_be_imported_is_not_tried_at_another_shape(monkeypatch):
    asked = []

    def fail(name):
        asked.append(name)
        raise ImportError('undefined symbol')

    monkeypatch.setattr(dispatch.importlib, 'import_module', fail)
    module = SCSA(8)
    assert module.backend_for(X).startswith('reference (cpp: ImportError: undefined symbol; lean: ')
    chosen(module, X[:1])
    assert len(asked) == 2


@pytest.mark.parametrize(
    'error', [OutOfMemoryError('64 GiB'), RuntimeError('Triton Error [CUDA]: out of memory')], ids=['torch', 'triton']
)
@pytest.mark.parametrize('part', ['forward', 'backward'])
class TestOutOfMemory:
    def test_once_more_with_what_was_held_in_reserve(self, part, error, monkeypatch, lines):
        from scsa_mm.ops.scsa import cpp

        module, x = SCSA(8), X.clone().requires_grad_()
        module(x).sum().backward()
        expected, x.grad = x.grad, None
        events, run = [], getattr(cpp, part)

        def runs(*args):
            events.append('run')
            if events == ['run']:
                raise error
            return run(*args)

        monkeypatch.setattr(cpp, part, runs)
        monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: events.append('empty'))
        module(x).sum().backward()
        assert events == ['run', 'empty', 'run']
        assert torch.equal(x.grad, expected) and not dispatch._failed

    def test_is_no_reason_to_take_more(self, part, error, monkeypatch):
        tried = fail_at({tuple(X.shape)}, error, monkeypatch, part)
        with pytest.raises(type(error), match=re.escape(str(error))):
            SCSA(8)(X.clone().requires_grad_()).sum().backward()
        assert len(tried) == 2 and not dispatch._failed


@pytest.mark.parametrize(
    'change, backend',
    [
        (lambda m: setattr(m, 'backend', 'lean'), 'lean'),
        (lambda m: setattr(m, 'num_heads', 3), 'reference'),
        (lambda m: setattr(m.q, 'weight', nn.Parameter(torch.ones(8, 1, 1))), 'reference'),
        (lambda m: setattr(m.q.weight, 'data', torch.ones(8, 1, 1)), 'reference'),
        (lambda m: setattr(m.norm_h.weight, 'data', m.norm_h.weight.data[:4]), 'reference'),
        (lambda m: setattr(m, 'q', nn.Conv2d(4, 4, 1, groups=4, bias=False)), 'reference'),
        (lambda m: m.norm_h.to('meta'), 'reference'),
        (lambda m: m.q.weight.untyped_storage().resize_(0), 'reference'),
        (lambda m: setattr(m.q, 'weight', nn.Parameter(Marked(m.q.weight.data))), 'reference'),
        (lambda m: m.register_parameter('unused', nn.Parameter(torch.ones(1))), 'cpp'),
    ],
    ids=['backend', 'heads', 'weight', 'data', 'part', 'layer', 'device', 'freed', 'subclass', 'nothing'],
)
def test_a_choice_is_remembered_until_something_changes(change, backend, monkeypatch):
    from scsa_mm.ops.scsa import cpp

    looked, unsupported = [], cpp.unsupported
    monkeypatch.setattr(cpp, 'unsupported', lambda *args: looked.append(1) or unsupported(*args))
    module = SCSA(8)
    for _ in range(3):
        assert chosen(module) == 'cpp'
    assert len(looked) == 1
    change(module)
    assert chosen(module) == backend


class Marked(torch.Tensor):
    pass


def test_a_choice_is_of_this_map(monkeypatch):
    module = SCSA(8)
    assert chosen(module) == 'cpp'
    assert chosen(module, X.to('meta')) == chosen(module, X[:0]) == chosen(module, X[:, :4]) == 'reference'
    assert chosen(module, X.as_subclass(Marked)) == chosen(module, X.long()) == 'reference'
    with FlopCounterMode(display=False):
        assert chosen(module) == 'reference'
    assert chosen(module) == 'cpp'


def test_remembered_choices_are_bounded(monkeypatch):
    monkeypatch.setattr(dispatch, 'MOST_CHOICES', 3)
    module = SCSA(8)
    for n in range(1, 9):
        assert chosen(module, X[:, :, :n]) == 'cpp'
    assert len(dispatch._chosen) <= 3


def test_a_weight_that_is_computed():
    """As of a parametrized layer, which has no parameter of that name."""
    module, plain = SCSA(8), SCSA(8)
    plain.load_state_dict(module.state_dict())
    nn.utils.parametrize.register_parametrization(module.norm_h, 'weight', Doubled())
    with torch.no_grad():
        plain.norm_h.weight *= 2
    assert torch.equal(module(X), plain(X)) and chosen(module) == 'cpp'


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize('backend', ['auto', 'lean'])
@pytest.mark.parametrize(
    'x',
    [torch.randn(2, 12, 5, 5), torch.randn(8, 5, 5), torch.ones(2, 8, 3, 3, dtype=torch.int64)],
    ids=['channels', 'dimensions', 'integers'],
)
def test_a_users_mistake_is_told_in_pytorchs_words(backend, x):
    module = SCSA(8, backend=backend)
    with use_backend('reference'), pytest.raises((RuntimeError, IndexError)) as plain:
        SCSA(8)(x)
    with pytest.raises(type(plain.value), match=f'^{re.escape(str(plain.value))}$'):
        module(x)
    assert not dispatch._failed


@pytest.mark.parametrize(
    'spoil',
    [
        lambda m: setattr(m, 'num_heads', 3),
        lambda m: setattr(m, 'num_heads', 0),
        lambda m: setattr(m, 'q', nn.Conv2d(4, 4, 1, groups=4, bias=False)),
        lambda m: setattr(m, 'local_dwc', nn.Conv1d(1, 1, 3, padding=1)),
        lambda m: setattr(m, 'norm_h', nn.GroupNorm(4, 4)),
    ],
    ids=['heads', 'no-heads', 'q', 'conv', 'norm'],
)
def test_weights_that_do_not_fit_are_not_read(spoil):
    """The compiled loops do not look at sizes: such a module once ended the process."""
    module = SCSA(8)
    spoil(module)
    assert chosen(module) == 'reference'
    with pytest.raises((RuntimeError, ZeroDivisionError, ValueError)):
        module(X)


def test_layers_without_bias():
    module = SCSA(8)
    module.norm_w, module.local_dwc = nn.GroupNorm(4, 8, affine=False), nn.Conv1d(2, 2, 3, groups=2, bias=False)
    assert chosen(module) == 'reference'
    assert module(X).isfinite().all()


def test_what_hooks_change_is_not_read():
    """saved_tensors_hooks may give back another dtype, as to save memory."""
    module, plain = SCSA(8), SCSA(8, backend='reference')
    plain.load_state_dict(module.state_dict())
    x = X.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.bfloat16(), lambda t: t):
        y = module(x)
    y.sum().backward()
    found, x.grad = x.grad, None
    plain(x).sum().backward()
    assert (found - x.grad).abs().max() < 0.05


def test_a_view_that_negates():
    module, x = SCSA(8), torch.complex(torch.zeros_like(X), X).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(module(x), module(-X))


def test_a_module_of_before_there_was_a_choice():
    """As torch.load gives one that was saved whole."""
    module = SCSA(8)
    expected = module(X)
    del module.__dict__['backend']
    assert torch.equal(module(X), expected)


def test_importing_the_package_compiles_nothing():
    code = """
import sys, scsa_mm
assert 'triton' not in sys.modules
lazy = '.cpp', '.triton', '.calls'
assert not [name for name in sys.modules if name.startswith('scsa_mm.ops.') and name.endswith(lazy)]
"""
    subprocess.run([sys.executable, '-c', code], check=True)


def test_frozen_weights_and_inputs_without_gradient():
    module = SCSA(8)
    module.q.weight.requires_grad_(False)
    x = nn.Parameter(X.clone())
    module(x).sum().backward()
    assert module.q.weight.grad is None
    assert x.grad is not None
    module.requires_grad_(False)
    assert not module(X).requires_grad
