"""The operators inside torch.compile: which one stands in the graph, and that it computes the same as outside."""

import importlib

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from scsa_mm.attention import EMA, SCSA
from scsa_mm.ops import compiled, dispatch, ema, plain, scsa, use_backend
from scsa_mm.ops.torch_versions import is_exporting

OPERATORS = {'SCSA': scsa.OPERATOR, 'EMA': ema.OPERATOR}
MODULES = {'SCSA': (SCSA, {}), 'EMA': (EMA, {'groups': 4})}
LAYOUTS = {
    'contiguous': lambda x: x,
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'strided': lambda x: torch.stack([x, x], dim=4)[..., 0],
}
pytestmark = [
    pytest.mark.skipif(is_exporting is None, reason='torch before 2.7 gets plain operations'),
    pytest.mark.filterwarnings('ignore'),
    pytest.mark.parametrize('name', MODULES),
]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(dispatch, '_failed', {})
    monkeypatch.setattr(dispatch, '_chosen', {})
    monkeypatch.setattr(dispatch, '_logged', set())
    torch._dynamo.reset()


def make(name, channels=8, dtype=torch.float64, **kwargs):
    torch.manual_seed(0)
    cls, common = MODULES[name]
    module = cls(channels, **{**common, **kwargs}).to(dtype)
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def results(call, module, x):
    """Output, and gradients of x and all parameters."""
    x = x.detach().requires_grad_()
    y = call(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])]


def operators_of(module, x, **kwargs):
    """What stands in the graph that torch.compile makes."""
    found = []

    def look(graph, _):
        found.extend(str(node.target) for node in graph.graph.nodes if node.op == 'call_function')
        return graph.forward

    torch.compile(module, backend=look, fullgraph=True, **kwargs)(x)
    return found


def is_opaque(module, x):
    targets = operators_of(module, x)
    named = [t for t in targets if t.startswith('scsa_mm.')]
    assert len(named) <= 1 and (not named or not any('sigmoid' in t for t in targets))
    return bool(named)


def arguments(module, x):
    """Of the opaque operator."""
    weights, options = module._arguments()
    flat = OPERATORS[type(module).__name__].flatten(weights)
    return x, [t for t in flat if t is not None], [t is not None for t in flat], 'sources', *options


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_as_pytorch_asks_of_an_operator(name, layout, dtype):
    """Schema, shapes and strides, autograd, and tracing with sizes that are symbols."""
    module = make(name, dtype=dtype)
    x = LAYOUTS[layout](draw(2, 8, 16, 15, dtype=dtype)).requires_grad_()
    given = arguments(module, x)
    forward, backward = (compiled.opaque(OPERATORS[name], suffix) for suffix in ('', '_backward'))
    torch.library.opcheck(forward, given)
    with torch.no_grad():
        y, *kept = forward(*given)
        torch.library.opcheck(
            backward, (draw(*y.shape, dtype=dtype), *given, kept), test_utils=('test_schema', 'test_faketensor')
        )


@pytest.mark.parametrize('dynamic', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_equals_what_is_not_compiled(name, layout, dynamic):
    module = make(name)
    call = torch.compile(module, fullgraph=True, backend='aot_eager', dynamic=dynamic)
    for shape in (2, 8, 9, 10), (1, 8, 6, 17):
        x = LAYOUTS[layout](draw(*shape))
        found, expected = results(call, module, x), results(module, module, x)
        assert found[0].stride() == expected[0].stride()
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)


def test_inductor_between_other_layers(name):
    """What is fused before and after, sizes that change, and no gradient."""
    module = make(name)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), module, nn.BatchNorm2d(8), nn.ReLU()).double()
    call = torch.compile(model, fullgraph=True, dynamic=True)
    for shape in (2, 3, 9, 10), (3, 3, 8, 17):
        x = draw(*shape)
        for a, b in zip(results(call, model, x), results(model, model, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(call(x), model(x), rtol=1e-9, atol=1e-10)


def test_under_autocast(name):
    """Weights in float32, the map in half precision."""
    module = make(name, dtype=torch.float32)
    x = draw(2, 8, 9, 10, dtype=torch.bfloat16)

    def half(x):
        with torch.autocast('cpu', torch.bfloat16):
            return module(x)

    found = results(torch.compile(half, fullgraph=True, backend='aot_eager'), module, x)
    assert [t.dtype for t in found] == [torch.bfloat16] * 2 + [torch.float32] * (len(found) - 2)
    for a, b in zip(found, results(half, module, x), strict=True):
        assert torch.equal(a, b)


def test_who_gets_plain_operations(name, monkeypatch):
    module, x = make(name), draw(2, 8, 6, 5)
    assert is_opaque(module, x) and is_opaque(make(name, backend='cpp'), x)
    assert not is_opaque(make(name, backend='lean'), x)
    assert not is_opaque(make(name, backend='reference'), x)
    with use_backend('reference'):
        torch._dynamo.reset()
        assert not is_opaque(module, x)
    torch._dynamo.reset()
    monkeypatch.setenv(dispatch.VARIABLE, 'lean')
    assert not is_opaque(module, x)
    monkeypatch.undo()
    torch._dynamo.reset()
    module.eval()
    program = torch.export.export(module, (x,))
    assert not any('scsa_mm' in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), module(x))


def test_options_that_no_kernel_has(name):
    if name == 'SCSA':
        x = draw(2, 8, 6, 5)
        for options in dict(gate='softmax'), dict(down_sample_mode='max_pool'), dict(attn_drop=0.5):
            assert not is_opaque(make(name, **options), x)
        assert is_opaque(make(name, attn_drop=0.5).eval(), x)


def test_functional_transforms(name):
    module, x = make(name), draw(3, 2, 8, 6, 5)
    call = torch.compile(lambda x: torch.vmap(lambda one: module(one))(x), fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(call(x), torch.stack([module(one) for one in x]))


@pytest.mark.parametrize('first', ['plain', 'dual'])
def test_forward_mode(name, first):
    module, plain = make(name), make(name, backend='reference')
    x, tangent = draw(2, 8, 6, 5), draw(2, 8, 6, 5).flip(2)
    call = torch.compile(module, backend='eager')

    def derivative(function):
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            y = function(torch.autograd.forward_ad.make_dual(x, tangent))
            return torch.autograd.forward_ad.unpack_dual(y).tangent

    for use in (call, derivative) if first == 'plain' else (derivative, call):
        found = derivative(call) if use is derivative else call(x)
        torch.testing.assert_close(found, derivative(plain) if use is derivative else plain(x))


def test_second_derivatives(name):
    """Of a graph that is traced only, as no compiled backward can be differentiated."""
    module, x = make(name), draw(2, 8, 6, 5)
    found = []
    for call in torch.compile(module, fullgraph=True, backend='eager'), module:
        first = torch.autograd.grad(call(x).square().sum(), list(module.parameters()), create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), list(module.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('part', ['forward', 'backward'])
def test_a_backend_that_fails(name, part, monkeypatch):
    """The reference is computed in its place, also in a backward whose forward went well; what fails is not retried."""
    module = make(name)
    x = draw(2, 8, 9, 10).contiguous(memory_format=torch.channels_last)
    call = torch.compile(module, fullgraph=True, backend='aot_eager')
    expected = results(module, module, x)
    backend = importlib.import_module(f'{OPERATORS[name].package}.cpp')
    calls = []

    def broken(*_):
        calls.append(part)
        raise RuntimeError('no luck')

    lines = []
    monkeypatch.setattr(dispatch, 'print_log', lambda line, **_: lines.append(line))
    monkeypatch.setattr(backend, part, broken)
    for _ in range(2):
        found = results(call, module, x)
        assert found[0].stride() == expected[0].stride()
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert calls == [part]
    assert f'{name}: cpp cannot run here (RuntimeError: no luck)' in lines


def test_a_bad_shape_is_one_for_forward_and_backward(name, monkeypatch):
    """What the reference keeps must not come to the backend, and other shapes stay with it."""
    module = make(name)
    call = torch.compile(module, fullgraph=True, backend='aot_eager', dynamic=True)
    bad, good = draw(2, 8, 9, 10), draw(2, 8, 6, 17)
    expected = [results(module, module, x) for x in (bad, good)]
    backend = importlib.import_module(f'{OPERATORS[name].package}.cpp')
    calls, run = [], {part: getattr(backend, part) for part in ('forward', 'backward')}

    def forward(x, *args):
        calls.append(('forward', x.shape))
        if x.shape == bad.shape:
            raise RuntimeError('no luck')
        return run['forward'](x, *args)

    def backward(grad, x, *args):
        calls.append(('backward', x.shape))
        return run['backward'](grad, x, *args)

    monkeypatch.setattr(backend, 'forward', forward)
    monkeypatch.setattr(backend, 'backward', backward)
    for _ in range(2):
        for x, of_x in zip((bad, good), expected, strict=True):
            for a, b in zip(results(call, module, x), of_x, strict=True):
                torch.testing.assert_close(a, b)
    assert calls == [('forward', bad.shape), *[('forward', good.shape), ('backward', good.shape)] * 2]


def test_what_cannot_run_at_all(name, monkeypatch):
    """As on a machine without a compiler: known before the first call."""
    module, x = make(name), draw(2, 8, 9, 10)
    expected = results(module, module, x)
    backend = importlib.import_module(f'{OPERATORS[name].package}.cpp')
    monkeypatch.setattr(backend, 'unsupported', lambda *_: 'no C++ compiler found')
    lines = []
    monkeypatch.setattr(dispatch, 'print_log', lambda line, **_: lines.append(line))
    found = results(torch.compile(module, fullgraph=True, backend='aot_eager'), module, x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert lines == [f'{name} on cpu, float64: reference (cpp: no C++ compiler found)']
    with torch.no_grad():  # nobody takes for numbers what has no meaning
        _, *kept = compiled.opaque(OPERATORS[name])(*arguments(module, x))
    assert kept and all(t.isnan().all() for t in kept)


def test_a_mistake_of_the_user_is_raised_and_not_held_against_the_backend(name, monkeypatch):
    module, x = make(name), draw(2, 8, 9, 10)
    call = torch.compile(module, fullgraph=True, backend='aot_eager')
    call(x)

    def fails(*_):
        raise RuntimeError('whatever is done')

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module(f'{OPERATORS[name].package}.cpp'), 'forward', fails)
        patch.setattr(plain, 'output', fails)
        with pytest.raises(RuntimeError, match='whatever is done'):
            call(x)
    assert not dispatch._failed


def test_an_empty_batch_is_not_worth_a_line(name, monkeypatch):
    lines = []
    monkeypatch.setattr(dispatch, 'print_log', lambda line, **_: lines.append(line))
    module, x = make(name), draw(0, 8, 9, 10)
    y, grad, *grads = results(torch.compile(module, fullgraph=True, backend='aot_eager'), module, x)
    assert y.shape == grad.shape == x.shape and not any(g.any() for g in grads) and not lines


def test_cached_graphs_are_of_these_sources(name, monkeypatch):
    """A graph outlives this process in the compiler's cache, where its text is the key."""
    module, x = make(name), draw(2, 8, 6, 5)
    found = []

    def look(graph, _):
        found.append([n.args[3] for n in graph.graph.nodes if str(n.target).startswith(f'scsa_mm.{name.lower()}')])
        return graph.forward

    torch.compile(module, backend=look)(x)
    monkeypatch.setattr('pathlib.Path.read_bytes', lambda path: b'another release')
    torch._dynamo.reset()
    torch.compile(module, backend=look)(x)
    (before,), (after,) = found
    assert len(before) == len(after) == 16 and before != after


def test_imported_again(name):
    """As notebooks do that reload what was edited."""
    module, x = make(name), draw(2, 8, 6, 5)
    importlib.reload(importlib.import_module(OPERATORS[name].package))
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend='aot_eager')(x), module(x))


def test_constants_are_marked_as_pytorch_does(name):
    def function():
        pass

    marked = vars(torch.compiler.assume_constant_result(function))
    assert marked and marked.items() <= vars(compiled._asked).items()


def test_kept_is_as_announced(name):
    """The compiler plans with these shapes; those of the Triton kernels: test_triton.py."""
    module = make(name, dtype=torch.bfloat16)
    weights, options = module._arguments()
    for shape in (2, 8, 9, 10), (1, 8, 1, 1), (1, 8, 40, 3):
        x = draw(*shape, dtype=torch.bfloat16)
        backend = importlib.import_module(f'{OPERATORS[name].package}.cpp')
        _, kept = backend.forward(x, weights, options)
        assert [(tuple(t.shape), t.dtype) for t in kept] == backend.kept_like(x, options)


def test_shapes_for_a_gpu(name):
    """Without one: what would be planned for it."""
    pytest.importorskip('triton')
    module = make(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, 8, 80, 128, device='cuda', dtype=torch.bfloat16)
        y, *kept = compiled.opaque(OPERATORS[name])(*arguments(module, x))
    assert y.shape == x.shape and y.dtype == x.dtype and y.device == x.device
    assert {t.device for t in kept} == {x.device}
    # Strips, pooled map and gates; and, for EMA, one map a group.
    assert sum(t.numel() for t in kept) < {'SCSA': 0.15, 'EMA': 0.75}[name] * x.numel()


def test_the_reference_for_weights_of_another_dtype(name):
    module = make(name, dtype=torch.float32)
    operator = OPERATORS[name]
    weights, options = module._arguments()
    flat = operator.flatten(weights)
    x = draw(2, 8, 5, 6, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16):
        y = plain.output(operator, x, flat, options)
    assert y.dtype == torch.bfloat16 and y.stride() == x.stride()
    torch.testing.assert_close(y, operator.reference(x.float(), weights, options).bfloat16())
