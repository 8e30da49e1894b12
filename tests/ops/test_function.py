"""The fast operators as one step of autograd: everything that a training does with them."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from scsa_mm.analysis.cost import saved_bytes
from scsa_mm.attention import EMA, SCSA
from scsa_mm.ops import use_backend

MODULES = {'SCSA': (SCSA, {}), 'EMA': (EMA, {'groups': 4})}
BACKENDS = ['lean', 'cpp']
pytestmark = [pytest.mark.parametrize('backend', BACKENDS), pytest.mark.parametrize('name', MODULES)]


def make(name, backend, channels=8):
    torch.manual_seed(0)
    cls, kwargs = MODULES[name]
    module = cls(channels, backend=backend, **kwargs).double()
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(loss, *modules):
    found = torch.autograd.grad(loss, [p for m in modules for p in m.parameters()])
    return [g.clone() for g in found]


def assert_all_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_gradcheck(name, backend):
    module = make(name, backend)
    x = draw(2, 8, 4, 5).requires_grad_()
    parameters = list(module.parameters())
    torch.autograd.gradcheck(lambda *_: module(x), (x, *parameters), fast_mode=True)


def test_second_derivatives(name, backend):
    """As gradient penalties take them."""
    module = make(name, backend)
    x = draw(1, 8, 3, 4).requires_grad_()
    torch.autograd.gradgradcheck(lambda *_: module(x), (x, *module.parameters()), fast_mode=True)


def test_second_derivatives_where_x_depends_on_the_weights(name, backend):
    """First derivatives with ``create_graph`` too must not count that path twice."""
    module, plain = make(name, backend), make(name, 'reference')
    x = draw(1, 8, 4, 3)
    found = []
    for m in (module, plain):
        first = torch.autograd.grad(m(m(x)).square().sum(), list(m.parameters()), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), list(m.parameters()))
        found.append([t.detach() for t in (*first, *second)])
    assert_all_close(*found)


def test_second_derivatives_under_autocast(name, backend):
    module = make(name, backend).float()
    x = draw(1, 8, 4, 3).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        y = module(x)
    first = torch.autograd.grad(y.float().square().sum(), list(module.parameters()), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), list(module.parameters()))
    assert all(g.isfinite().all() for g in second)


def test_forward_mode(name, backend):
    module, plain = make(name, backend), make(name, 'reference')
    x, tangent = draw(1, 8, 4, 3), draw(1, 8, 4, 3, seed=2)
    found = []
    for m in (module, plain):
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            y = m(torch.autograd.forward_ad.make_dual(x, tangent))
            found.append(torch.autograd.forward_ad.unpack_dual(y).tangent)
    torch.testing.assert_close(*found)


def test_twice_in_one_graph(name, backend):
    module = make(name, backend)
    x, y = draw(2, 8, 6, 5), draw(1, 8, 4, 9, seed=2)

    def loss():
        return module(module(x)).square().sum() + module(y).sum()

    with use_backend('reference'):
        plain = copy.deepcopy(module)
        plain.backend = 'auto'
        expected = gradients(plain(plain(x)).square().sum() + plain(y).sum(), plain)
    assert_all_close(gradients(loss(), module), expected)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_without_gradients(name, backend, mode):
    module = make(name, backend)
    x = draw(2, 8, 6, 5)
    expected = module(x)
    with mode():
        y = module(x)
    assert not y.requires_grad
    assert torch.equal(y, expected)


@pytest.mark.parametrize('use_reentrant', [False, True])
def test_activation_checkpointing(name, backend, use_reentrant):
    """``with_cp`` of the mm backbones is the reentrant one."""
    module = make(name, backend)
    x = draw(2, 8, 6, 5).requires_grad_()
    expected = gradients(module(x).square().sum(), module)
    module(x).square().sum().backward()
    expected, grad_x = [p.grad.clone() for p in module.parameters()], x.grad.clone()
    module.zero_grad()
    x.grad = None
    checkpoint(module, x, use_reentrant=use_reentrant).square().sum().backward()
    assert_all_close([p.grad for p in module.parameters()] + [x.grad], [*expected, grad_x])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(name, backend, dtype):
    """Weights in float32, features in half precision, as after a convolution under AMP."""
    module, exact = make(name, backend), make(name, 'reference')
    module.float()
    x = draw(2, 8, 6, 5).to(dtype).requires_grad_()
    with torch.autocast('cpu', dtype):
        y = module(x)
    assert y.dtype == dtype
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())
    x64 = x.detach().double().requires_grad_()
    exact(x64).square().sum().backward()
    tolerance = 4 * torch.finfo(dtype).eps
    for found, expected in zip((x, *module.parameters()), (x64, *exact.parameters()), strict=True):
        error = (found.grad - expected.grad).norm() / expected.grad.norm()
        assert error < tolerance


def test_memory_kept_for_backward(name, backend):
    """Published: 3.1 maps for SCSA and 5.5 for EMA; the bars are 1.2 and 1.7."""
    cls, _ = MODULES[name]
    x = torch.randn(2, 256, 50, 84, requires_grad=True)
    module = cls(256, backend=backend)
    kept = saved_bytes(module, x) / (x.numel() * 4)
    assert 1 <= kept <= {'SCSA': 1.2, 'EMA': 1.7}[name]
    with use_backend('reference'):
        assert saved_bytes(cls(256), x) / (x.numel() * 4) > 2.5


@pytest.mark.filterwarnings('ignore')
def test_compiled(name, backend):
    """One graph of plain operations, which the compiler fuses; a graph break raises."""
    module = make(name, backend)
    x = draw(2, 8, 6, 5).requires_grad_()
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    assert_all_close(gradients(compiled(x).square().sum(), module), gradients(module(x).square().sum(), module))


def test_deterministic(name, backend):
    module = make(name, backend)
    module.float()
    x = draw(2, 8, 11, 9).float().requires_grad_()
    expected = gradients(module(x).square().sum(), module)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            for _ in range(3):
                for a, b in zip(gradients(module(x).square().sum(), module), expected, strict=True):
                    assert torch.equal(a, b)
    finally:
        torch.use_deterministic_algorithms(before)


def test_functional_transforms(name, backend):
    """torch.func sees plain operations."""
    module = make(name, backend)
    x = draw(3, 2, 8, 6, 5)
    y = torch.func.vmap(module)(x)
    torch.testing.assert_close(y, torch.stack([module(one) for one in x]))


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.filterwarnings('ignore')
def test_freed_weights(name, backend, compiled):
    """As of a sharded model that was not gathered: PyTorch's error, where it has one; of a norm it crashes itself."""
    torch._dynamo.reset()
    module, x = make(name, backend), draw(2, 8, 6, 5)
    call = torch.compile(module, backend='aot_eager') if compiled else module
    call(x)
    next(module.parameters()).untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match='storage|not allocated'):
        call(x)


def test_not_contiguous(name, backend):
    module = make(name, backend)
    wide = draw(2, 8, 6, 12).requires_grad_()
    x = wide[..., ::2]
    y = module(x)
    expected = make(name, 'reference')(x.contiguous())
    torch.testing.assert_close(y, expected)
    grad = draw(2, 8, 1, 1).expand(2, 8, 6, 6)
    found = torch.autograd.grad(y, wide, grad)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected, wide, grad)[0])
