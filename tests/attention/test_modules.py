"""What every attention module promises, whatever it computes."""

import copy
import io
import pickle

import pytest
import torch
from timm.layers import SelectiveKernel
from torch import nn

from scsa_mm.attention import CA, CBAM, CPCA, ECA, ELA, EMA, ESE, FCA, GC, PCSA, SA, SCSA, SE, SK, SMSA, NonLocal
from scsa_mm.registry import MODELS
from tests.attention.zoo import (
    MODULES,
    NO_EMPTY_BATCH,
    REGROUPING,
    VECTOR_NORM,
    class_of,
    every_identity,
    every_module,
    make,
    run,
)

# Below the window in one or both directions, odd, not square, one pixel.
SIZES = [(1, 1), (1, 9), (6, 13), (23, 7), (15, 22)]
REGISTERED = [cls for cls in MODELS.module_dict.values() if cls.__module__.startswith('scsa_mm.attention.')]


def test_every_registered_module_is_in_the_table():
    assert {class_of(name) for name in MODULES} == set(REGISTERED)


@every_module
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('size', SIZES, ids=lambda s: f'{s[0]}x{s[1]}')
def test_float32_and_channels_last_agree_with_float64(name, training, size):
    torch.manual_seed(1)  # one that brings no input of a ReLU within rounding of 0
    module = make(name, 16).train(training)
    # Statistics over two images are badly conditioned: a few digits of the gradients are lost to them.
    batch, tolerance = (8, 1e-4) if training and class_of(name) in VECTOR_NORM else (2, 2e-5)
    x, grad = torch.randn(batch, 16, *size), torch.randn(batch, 16, *size)
    truth = run(copy.deepcopy(module).double(), x.double(), grad.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        found = run(module, x.contiguous(memory_format=layout), grad)
        for ours, true in zip(found, truth, strict=True):
            scale = max(1.0, true.abs().max().item())
            assert (ours.double() - true).abs().max() <= tolerance * scale


@every_module
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_low_precision_stays_close_and_keeps_its_dtype(name, dtype):
    torch.manual_seed(0)
    module = make(name, 16).to(dtype)
    x = torch.randn(2, 16, 15, 22).to(dtype)
    y = module(x)
    assert y.dtype == dtype
    truth = copy.deepcopy(module).double()(x.double())
    assert (y.double() - truth).abs().max() <= 16 * torch.finfo(dtype).eps * truth.abs().max()


@every_module
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_autocast_keeps_the_dtype_of_the_features(name, dtype):
    module = make(name, 16)
    x = torch.randn(2, 16, 9, 11, dtype=dtype)
    with torch.autocast('cpu', torch.bfloat16):
        assert module(x).dtype == dtype


@pytest.mark.parametrize('name', [name for name in MODULES if class_of(name) not in REGROUPING])
def test_keeps_the_memory_format(name):
    x = torch.randn(2, 16, 15, 22).contiguous(memory_format=torch.channels_last)
    assert make(name, 16)(x).is_contiguous(memory_format=torch.channels_last)


@every_module
def test_deterministic_mode(name):
    torch.manual_seed(0)
    module = make(name, 16)
    x, grad = torch.randn(2, 16, 15, 22), torch.randn(2, 16, 15, 22)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = run(module, x, grad), run(module, x, grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_module
@pytest.mark.parametrize('size', [(1, 1), (5, 8)], ids=lambda s: f'{s[0]}x{s[1]}')
def test_one_image_in_training(name, size):
    """Also on one pixel and with few channels: what is trained is finite, and what is tracked fit for inference."""
    torch.manual_seed(0)
    module = make(name, 4).train()
    x = torch.randn(1, 4, *size)
    assert all(torch.isfinite(t).all() for t in run(module, x, torch.randn_like(x)))
    assert torch.isfinite(module.eval()(x)).all()


@every_identity
@pytest.mark.parametrize('size', [(1, 1), (9, 11), (14, 23)], ids=lambda s: f'{s[0]}x{s[1]}')
def test_identity_init_is_the_identity(build, size):
    torch.manual_seed(0)
    module = build(16, identity_init=True)
    x = 100 * torch.randn(2, 16, *size)
    assert (module(x) - x).abs().max() <= 1e-6


@every_identity
def test_identity_init_adds_no_parameters_and_changes_no_names(build):
    assert list(build(16).state_dict()) == list(build(16, identity_init=True).state_dict())


@every_identity
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


@every_identity
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
    torch.testing.assert_close(scsa(x), pcsa(smsa(x)), rtol=0, atol=1e-14)


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
def test_an_empty_batch(name):
    module, x = make(name, 16).train(), torch.randn(0, 16, 9, 9)
    if class_of(name) in NO_EMPTY_BATCH:
        with pytest.raises(RuntimeError, match='ambiguous'):
            module(x)
        return
    assert module(x).shape == x.shape
    assert torch.isfinite(module.eval()(torch.randn(1, 16, 9, 9))).all()


@every_module
def test_a_crop_of_a_larger_map(name):
    torch.manual_seed(0)
    module = make(name, 16).eval()
    crop = torch.randn(2, 16, 9, 12)[:, :, 1:, 2:-1]
    if class_of(name) is GC:
        with pytest.raises(RuntimeError, match='view size is not compatible'):
            module(crop)
        return
    torch.testing.assert_close(module(crop), module(crop.contiguous()), rtol=1e-5, atol=1e-5)


@every_module
def test_copies_and_pickles(name):
    torch.manual_seed(0)
    module = make(name, 16).eval()
    x = torch.randn(2, 16, 6, 9)
    expected = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), expected)
        assert {p.data_ptr() for p in twin.parameters()}.isdisjoint({p.data_ptr() for p in module.parameters()})


@every_module
def test_a_checkpoint_restores_it(name):
    torch.manual_seed(0)
    module, other = make(name, 16).eval(), make(name, 16).eval()
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 16, 6, 9)
    assert torch.equal(module(x), other(x))


@every_module
@pytest.mark.filterwarnings('ignore:`torch.jit', 'ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_traced_and_compiled_agree(name, training):
    torch.manual_seed(0)
    module = make(name, 16).train(training)
    x, grad = torch.randn(2, 16, 9, 11), torch.randn(2, 16, 9, 11)
    expected = run(copy.deepcopy(module), x, grad)
    with torch.no_grad():
        traced = torch.jit.trace(copy.deepcopy(module), x, check_trace=False)
    torch.testing.assert_close(traced(x), expected[0], rtol=1e-5, atol=1e-5)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend='aot_eager')
    for found, true in zip(run(compiled, x, grad), expected, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize('cls', [GC, NonLocal])
def test_residual_modules_start_as_the_identity_whatever_the_host_initialises(cls):
    from mmengine.model import BaseModule

    class Host(BaseModule):
        def __init__(self):
            super().__init__(init_cfg=dict(type='Kaiming', layer=['Conv2d']))
            self.attention = cls(64)

    host = Host()
    x = torch.randn(2, 64, 9, 11)
    assert torch.equal(host.attention(x), x)
    host.init_weights()
    assert torch.equal(host.attention(x), x)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_sk_equals_timms_when_that_is_set_to_the_published_function(training):
    torch.manual_seed(0)
    ours = SK(32, groups=4, reduction=4, min_channels=1)
    theirs = SelectiveKernel(32, split_input=False, groups=4, rd_channels=8)
    names = {f'conv.{i}.{part}': f'paths.{i}.{part}' for i in range(2) for part in ('conv', 'bn')}
    names |= {'fc.0.conv': 'attn.fc_reduce', 'fc.0.bn': 'attn.bn', 'fc.1': 'attn.fc_select'}
    for value in (*ours.parameters(), *ours.buffers()):
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.5) if value.ndim == 1 else nn.init.normal_(value)
    state = {key.rpartition('.'): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict({f'{names[layer]}.{kind}': value for (layer, _, kind), value in state.items()})
    x, grad = torch.randn(3, 32, 9, 11).double(), torch.randn(3, 32, 9, 11).double()
    found, expected = (run(m.double().train(training), x, grad) for m in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('size', [(1, 1), (3, 9), (7, 14), (15, 22), (50, 7)], ids=lambda s: f'{s[0]}x{s[1]}')
def test_fca_averages_as_an_adaptive_pool_does(size):
    torch.manual_seed(0)
    module = FCA(16, num_freq=4, reduction=4).double()
    x = torch.randn(2, 16, *size, dtype=torch.double)
    pooled = nn.functional.adaptive_avg_pool2d(x, (7, 7))
    gate = module.fc(module.dct_layer(pooled)).sigmoid()
    torch.testing.assert_close(module(x), x * gate[:, :, None, None], rtol=1e-12, atol=1e-12)


def test_one_value_a_channel_is_normalised_as_in_inference():
    """SK in training on one image: the pooled vector by the running statistics, which stay as they are."""
    torch.manual_seed(0)
    module = SK(16, groups=2, reduction=4, min_channels=2).double()
    statistics = module.fc[0].bn
    nn.init.normal_(statistics.running_mean)
    statistics.running_var += torch.rand(4)
    before = copy.deepcopy(statistics.state_dict())
    x = torch.randn(1, 16, 5, 8, dtype=torch.double)
    found = module.train()(x)
    assert all(torch.equal(value, before[key]) for key, value in statistics.state_dict().items())
    reference = copy.deepcopy(module)
    reference.fc.eval()
    assert torch.equal(found, reference(x))
    module(torch.randn(2, 16, 5, 8, dtype=torch.double))
    assert not torch.equal(statistics.running_mean, before['running_mean'])


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
        (lambda: SE(8), 'SE: reduction must be at most in_channels, got 16 and 8, which leaves no hidden.*from 1 to 8'),
        (lambda: SE(16, reduction=0), 'SE: reduction must be at least 1, got 0'),
        (lambda: ESE(0), 'ESE: in_channels must be at least 1, got 0'),
        (lambda: ECA(64, kernel_size=4), 'ECA: kernel_size must be odd, .* got 4'),
        (lambda: CBAM(64, kernel_size=2), 'CBAM: kernel_size must be odd'),
        (lambda: CBAM(64, reduction=0), 'CBAM: reduction must be at least 1, got 0'),
        (lambda: CBAM(64, min_channels=0), 'CBAM: min_channels must be at least 1, got 0'),
        (lambda: CA(16, min_channels=0), 'CA: min_channels must be at least 1, got 0'),
        (lambda: CA(16, reduction=-1), 'CA: reduction must be at least 1, got -1'),
        (lambda: ELA(24), r'ELA: in_channels must be a multiple of num_groups, got 24 and 16; choose .*, 8, 12, 24\]'),
        (lambda: SK(48), r'SK: in_channels must be a multiple of groups, got 48 and 32; choose groups from \[1, 2, 3'),
        (lambda: SK(32, num_branches=0), 'SK: num_branches must be at least 1, got 0'),
        (lambda: FCA(24), r'FCA: in_channels must be a multiple of num_freq, got 24 and 16; choose num_freq from \[1'),
        (lambda: FCA(64, num_freq=64), 'FCA: num_freq must be at most 32, the ranked frequencies, got 64'),
        (lambda: FCA(64, dct_w=10), 'FCA: dct_w must be a multiple of 7, got 10'),
        (lambda: CPCA(8), 'CPCA: reduction must be at most in_channels, got 16 and 8'),
        (lambda: SA(64), r'SA: in_channels must be a multiple of 2 \* groups, got 64 and 64; choose .*, 16, 32\]'),
        (lambda: SA(15), 'SA: in_channels must be a multiple of 2, got 15'),
        (lambda: GC(8), 'GC: reduction must be at most in_channels, got 16 and 8'),
        (
            lambda: NonLocal(16, mode='gaussian'),
            "one of 'embedded_gaussian', 'dot_product', got 'gaussian'",
        ),
    ],
)
def test_bad_arguments_are_named_at_construction(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    'build',
    [
        lambda: SCSA(64.0),
        lambda: SCSA('64'),
        lambda: EMA(64, groups=2.0),
        lambda: SE(64.0),
        lambda: ESE('64'),
        lambda: FCA(64, num_freq=2.0),
    ],
)
def test_counts_must_be_ints(build):
    with pytest.raises(TypeError, match='must be an int'):
        build()


@pytest.mark.parametrize('cls', REGISTERED)
def test_a_misspelt_argument_is_refused(cls):
    with pytest.raises(TypeError, match='reductoin'):
        cls(64, reductoin=16)


@pytest.mark.parametrize(
    'build, parameters',
    [
        (lambda c: SCSA(c), lambda c: 16 * c),
        (lambda c: SE(c), lambda c: 2 * c * (c // 16)),
        (lambda c: ESE(c), lambda c: c * c + c),
        (lambda c: ECA(c), lambda c: 5),
        (lambda c: CBAM(c), lambda c: 2 * c * max(c // 16, 8) + 2 * 7**2),
        (lambda c: CA(c), lambda c: 3 * c * max(c // 32, 8) + 2 * c + 2 * max(c // 32, 8)),
        (lambda c: ELA(c), lambda c: 7 * c + 2 * c),
        (lambda c: SK(c), lambda c: 2 * (9 * c * c // 32 + 2 * c) + 3 * c * max(c // 16, 32) + 2 * max(c // 16, 32)),
        (lambda c: FCA(c), lambda c: 2 * c * (c // 16)),
        (lambda c: CPCA(c), lambda c: c * c + 2 * c * (c // 16) + 112 * c + c // 16),
        (lambda c: SA(c), lambda c: 6 * (c // 128)),
        (lambda c: GC(c), lambda c: 2 * c * (c // 16) + 2 * c + 3 * (c // 16) + 1),
        (lambda c: NonLocal(c), lambda c: 4 * c * (c // 2) + c + 3 * (c // 2)),
    ],
)
@pytest.mark.parametrize('in_channels', [256, 384])
def test_costs_what_its_docstring_says(build, parameters, in_channels):
    assert sum(p.numel() for p in build(in_channels).parameters()) == parameters(in_channels)


def test_few_channels_keep_the_least_number_of_hidden_ones():
    """MobileNetV2 starts with 16 channels, half of what CA reduces by."""
    assert CA(16).conv.conv.out_channels == 8
    assert CBAM(16).mlp_chans[0].out_channels == 8
    assert SK(32).fc[0].conv.out_channels == 32
