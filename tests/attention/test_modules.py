"""What every attention module promises, whatever it computes."""

import copy

import pytest
import torch
from torch import nn

from scsa_mm.attention import EMA, PCSA, SCSA, SMSA

MODULES = {
    'SCSA': lambda c, **kw: SCSA(c, **kw),
    'SCSA-heads-bias': lambda c, **kw: SCSA(c, num_heads=4, qkv_bias=True, **kw),
    'SCSA-max-softmax': lambda c, **kw: SCSA(c, down_sample_mode='max_pool', gate='softmax', **kw),
    'SCSA-global': lambda c, **kw: SCSA(c, window_size=-1, **kw),
    'SMSA': lambda c, **kw: SMSA(c, **kw),
    'SMSA-softmax': lambda c, **kw: SMSA(c, gate='softmax', **kw),
    'PCSA': lambda c, **kw: PCSA(c, **kw),
    'PCSA-softmax': lambda c, **kw: PCSA(c, gate='softmax', **kw),
    'EMA': lambda c, **kw: EMA(c, groups=4, **kw),
}
# Below the window in one or both directions, odd, not square, one pixel.
SIZES = [(1, 1), (1, 9), (6, 13), (23, 7), (15, 22)]
every_module = pytest.mark.parametrize('build', MODULES.values(), ids=MODULES.keys())


def run(module, x, grad):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    y = module(x)
    y.backward(grad)
    return [y.detach(), x.grad, *(p.grad.clone() for p in module.parameters())]


@every_module
@pytest.mark.parametrize('size', SIZES, ids=lambda s: f'{s[0]}x{s[1]}')
def test_float32_and_channels_last_agree_with_float64(build, size):
    torch.manual_seed(0)
    module = build(16)
    x, grad = torch.randn(2, 16, *size), torch.randn(2, 16, *size)
    truth = run(copy.deepcopy(module).double(), x.double(), grad.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        found = run(module, x.contiguous(memory_format=layout), grad)
        for ours, true in zip(found, truth, strict=True):
            scale = max(1.0, true.abs().max().item())
            assert (ours.double() - true).abs().max() <= 2e-5 * scale


@every_module
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_low_precision_stays_close_and_keeps_its_dtype(build, dtype):
    torch.manual_seed(0)
    module = build(16).to(dtype)
    x = torch.randn(2, 16, 15, 22).to(dtype)
    y = module(x)
    assert y.dtype == dtype
    truth = copy.deepcopy(module).double()(x.double())
    assert (y.double() - truth).abs().max() <= 16 * torch.finfo(dtype).eps * truth.abs().max()


@every_module
def test_autocast_keeps_the_dtype_of_the_features(build):
    module = build(16)
    x = torch.randn(2, 16, 9, 11, dtype=torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        assert module(x).dtype == torch.bfloat16


@pytest.mark.parametrize('name', [name for name in MODULES if name != 'EMA'])  # EMA regroups the channels
def test_keeps_the_memory_format(name):
    x = torch.randn(2, 16, 15, 22).contiguous(memory_format=torch.channels_last)
    assert MODULES[name](16)(x).is_contiguous(memory_format=torch.channels_last)


@every_module
def test_deterministic_mode(build):
    torch.manual_seed(0)
    module = build(16)
    x, grad = torch.randn(2, 16, 15, 22), torch.randn(2, 16, 15, 22)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = run(module, x, grad), run(module, x, grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_module
def test_batch_of_one_in_training_on_one_pixel_with_few_channels(build):
    module = build(4).train()
    y = module(torch.randn(1, 4, 1, 1))
    assert torch.isfinite(y).all()


@every_module
@pytest.mark.parametrize('size', [(1, 1), (9, 11), (14, 23)], ids=lambda s: f'{s[0]}x{s[1]}')
def test_identity_init_is_the_identity(build, size):
    torch.manual_seed(0)
    module = build(16, identity_init=True)
    x = 100 * torch.randn(2, 16, *size)
    assert (module(x) - x).abs().max() <= 1e-6


@every_module
def test_identity_init_adds_no_parameters_and_changes_no_names(build):
    assert list(build(16).state_dict()) == list(build(16, identity_init=True).state_dict())


@every_module
def test_identity_init_gives_every_parameter_a_gradient_within_two_steps(build):
    torch.manual_seed(0)
    module = build(16, identity_init=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    reached = set()
    for _ in range(2):
        optimizer.zero_grad()
        (module(torch.randn(2, 16, 15, 22)) * torch.randn(2, 16, 15, 22)).sum().backward()
        reached |= {name for name, p in module.named_parameters() if p.grad.abs().max() > 0}
        optimizer.step()
    assert reached == {name for name, _ in module.named_parameters()}


@every_module
def test_identity_init_survives_the_initialisation_of_the_host(build):
    from mmengine.model import BaseModule

    class Host(BaseModule):
        def __init__(self):
            super().__init__(
                init_cfg=[
                    dict(type='Kaiming', layer=['Conv1d', 'Conv2d']),
                    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
                ]
            )
            self.attention = build(16, identity_init=True)

    host = Host()
    host.init_weights()
    x = torch.randn(2, 16, 9, 11)
    assert (host.attention(x) - x).abs().max() <= 1e-6


def test_scsa_is_pcsa_of_smsa():
    torch.manual_seed(0)
    scsa = SCSA(16).double()
    smsa, pcsa = SMSA(16).double(), PCSA(16).double()
    smsa.load_state_dict({k: v for k, v in scsa.state_dict().items() if k in smsa.state_dict()})
    pcsa.load_state_dict({k: v for k, v in scsa.state_dict().items() if k in pcsa.state_dict()})
    assert set(scsa.state_dict()) == set(smsa.state_dict()) | set(pcsa.state_dict())
    x = torch.randn(2, 16, 15, 22, dtype=torch.double)
    assert torch.equal(scsa(x), pcsa(smsa(x)))


@pytest.mark.parametrize('size', [(1, 1), (3, 5), (5, 20)], ids=lambda s: f'{s[0]}x{s[1]}')
def test_a_window_larger_than_the_map_is_the_whole_map_there(size):
    torch.manual_seed(0)
    large, cut = PCSA(16, window_size=7).double(), PCSA(16, window_size=7).double()
    cut.load_state_dict(large.state_dict())
    h, w = size
    x = torch.randn(2, 16, h, w, dtype=torch.double)
    pooled = nn.functional.avg_pool2d(x, (min(h, 7), min(w, 7)))
    # On the pooled map a window of one pixel gives the same gate.
    cut.window_size = 1
    gate = cut(pooled) / pooled
    torch.testing.assert_close(large(x), x * gate[:, :, :1, :1], rtol=1e-9, atol=1e-12)


def test_a_dominant_channel_does_not_overflow_float16():
    torch.manual_seed(0)
    module = PCSA(64).half()
    for layer in (module.q, module.k):
        torch.nn.init.ones_(layer.weight)
    x = torch.randn(1, 64, 200, 336).half() / 8
    x[:, 0] += 60 * torch.rand(200, 336).half()
    assert torch.isfinite(module(x)).all()


@every_module
def test_an_empty_batch(build):
    assert build(16)(torch.randn(0, 16, 9, 9)).numel() == 0


def test_attention_dropout_acts_in_training_only():
    torch.manual_seed(0)
    module = SCSA(16, attn_drop=0.5)
    x = torch.randn(1, 16, 14, 14)
    assert not torch.equal(module(x), module(x))
    module.eval()
    plain = SCSA(16)
    plain.load_state_dict(module.state_dict())
    assert torch.equal(module(x), plain(x))


def test_gradcheck():
    torch.manual_seed(0)
    for module, size in ((SCSA(4, window_size=2), (3, 4)), (EMA(4, groups=2), (3, 2))):
        module.double()
        x = torch.randn(1, 4, *size, dtype=torch.double, requires_grad=True)
        parameters = list(module.parameters())
        assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *parameters))  # noqa: B023


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda: SCSA(66), 'in_channels must be a multiple of 4, got 66'),
        (lambda: SCSA(10), 'multiple of 4, got 10'),
        (lambda: SCSA(64, num_heads=5), r'multiple of num_heads, got 64 and 5; choose num_heads from \[1, 2, 4'),
        (lambda: SCSA(64, kernel_sizes=(3, 5, 7)), r'four odd positive ints, got \(3, 5, 7\)'),
        (lambda: SCSA(64, kernel_sizes=(2, 5, 7, 9)), 'four odd positive ints'),
        (lambda: SCSA(64, kernel_sizes=3), 'four odd positive ints, got 3'),
        (lambda: SCSA(64, gate='tanh'), "gate must be one of 'sigmoid', 'softmax', got 'tanh'"),
        (lambda: SCSA(64, down_sample_mode='recombination'), 'recombination.*never defined.*avg_pool'),
        (lambda: SCSA(64, down_sample_mode='mean'), "one of 'avg_pool', 'max_pool', got 'mean'"),
        (lambda: SCSA(64, window_size=0), 'window_size must be at least 1, got 0'),
        (lambda: SCSA(64, window_size=-1, down_sample_mode='max_pool'), "must be 'avg_pool', got 'max_pool'"),
        (lambda: SCSA(64, attn_drop=1.0), r'attn_drop must be in \[0, 1\), got 1.0'),
        (lambda: SCSA(0), 'in_channels must be at least 1, got 0'),
        (lambda: EMA(24), r'multiple of groups, got 24 and 32; choose groups from \[1, 2, 3, 4, 6, 8, 12, 24\]'),
        (lambda: SMSA(6), 'SMSA: in_channels must be a multiple of 4'),
        (lambda: PCSA(6, num_heads=4), 'PCSA: in_channels must be a multiple of num_heads'),
    ],
)
def test_bad_arguments_are_named_at_construction(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('build', [lambda: SCSA(64.0), lambda: SCSA('64'), lambda: EMA(64, groups=2.0)])
def test_counts_must_be_ints(build):
    with pytest.raises(TypeError, match='must be an int'):
        build()
