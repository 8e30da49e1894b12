"""The Triton kernels of SCSA: interpreted where no GPU is, and compiled for GPUs that are not here."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from scsa_mm.ops.scsa.arguments import Options, flatten, layers, unflatten
from scsa_mm.ops.scsa.reference import channel_gate, spatial_gates
from tests.ops.exactness import geometric_means, ratios_of
from tests.ops.interpreter import device, evaluate, interpreted
from tests.ops.scsa.cases import golden_arrays, golden_cases

pytest.importorskip('triton', '3.2')

LAYERS = ('local_dwc', 'global_dwc_s', 'global_dwc_m', 'global_dwc_l', 'norm_h', 'norm_w', 'norm', 'q', 'k', 'v')
PARAMETERS = [f'{layer}.{part}' for layer in LAYERS for part in ('weight', 'bias')]
NAMES = ('y', 'grad_x', *(f'grad/{name}' for name in PARAMETERS))
KERNELS = (3, 5, 7, 9)
# Shape, kernels, biases of q, k, v, options, channels-last. Together: one number, row and column; maps under the
# window, with and without a rest beyond the windows; more channels than one block of keys has, of few positions and of
# many; more positions than one program multiplies; windows of several cells; strips in several chunks; several blocks
# of everything.
CASES = {
    'pixel': ((1, 4, 1, 1), KERNELS, False, Options(), False),
    'row': ((1, 16, 1, 13), KERNELS, True, Options(num_heads=2), False),
    'column': ((2, 8, 17, 1), KERNELS, False, Options(unit=True), True),
    'small': ((2, 12, 5, 3), (1, 3, 5, 11), True, Options(unit=True), False),
    'window-4': ((2, 16, 9, 10), KERNELS, False, Options(window_size=4, num_heads=2), True),
    'whole-map': ((1, 16, 19, 70), (1, 3, 3, 1), False, Options(window_size=-1), False),
    'whole-map-last': ((1, 16, 9, 35), KERNELS, True, Options(window_size=-1, unit=True), True),
    'larger-window': ((1, 16, 11, 40), KERNELS, False, Options(window_size=20), False),
    'channels': ((1, 144, 8, 9), (3, 1, 1, 3), True, Options(window_size=4), True),
    'channels-and-positions': ((1, 136, 4, 7), (3, 1, 1, 3), False, Options(window_size=2), False),
    'positions': ((2, 8, 9, 12), (3, 1, 1, 3), True, Options(window_size=1, num_heads=2), False),
    'wide': ((1, 8, 9, 130), (3, 1, 3, 1), False, Options(), False),
    'long-kernel': ((1, 8, 5, 33), (3, 23, 1, 21), False, Options(), True),
}
HALVES = [torch.float16, torch.bfloat16]
DTYPES = [torch.float32, *HALVES]


def draw(shape, kernels, qkv_bias, dtype, seed=0):
    """x, gradient of the output and flat weights, in float64 but rounded to ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    c = shape[1]

    def normal(*size, mean=0.0, std=1.0):
        return (mean + std * torch.randn(size, generator=generator, dtype=torch.float64)).to(dtype).double()

    flat = []
    for kernel in kernels:
        flat += [normal(c // 4, 1, kernel, std=kernel**-0.5), normal(c // 4)]
    for _ in range(3):
        flat += [normal(c, mean=1, std=0.5), normal(c, std=0.5)]
    for _ in range(3):
        flat += [normal(c, 1, 1, 1), normal(c) if qkv_bias else None]
    return normal(*shape, mean=0.5), normal(*shape), flat


def kernels_of(x, grad, flat, options):
    """Output and gradients from the kernels, and the number of elements kept."""
    from scsa_mm.ops.scsa import triton

    x, grad = x.to(device()), grad.to(device())
    weights = unflatten([None if t is None else t.to(device()) for t in flat])
    assert triton.unsupported(x, weights, options) == ''
    empty, empty_like, new_empty = torch.empty, torch.empty_like, torch.Tensor.new_empty
    # What a kernel forgets to write is zero by chance in fresh memory; here it is not a number.
    with (
        mock.patch.object(torch, 'empty', lambda *a, **k: empty(*a, **k).fill_(float('nan'))),
        mock.patch.object(torch, 'empty_like', lambda *a, **k: empty_like(*a, **k).fill_(float('nan'))),
        mock.patch.object(torch.Tensor, 'new_empty', lambda *a, **k: new_empty(*a, **k).fill_(float('nan'))),
    ):
        out, kept = triton.forward(x, weights, options)
        assert [(tuple(t.shape), t.dtype) for t in kept] == triton.kept_like(x, options)
        dx, dflat = triton.backward(grad, x, weights, options, kept)
    values = [out, dx, *dflat]
    return [None if t is None else t.cpu() for t in values], sum(t.numel() for t in kept)


def reference_of(x, grad, flat, options):
    x = x.clone().requires_grad_()
    flat = [None if t is None else t.clone().requires_grad_() for t in flat]
    convs, norm_h, norm_w, *channel = layers(unflatten(flat))
    a_h, a_w = spatial_gates(x, convs, norm_h, norm_w, options.gate, options.unit)
    x_s = x * a_h * a_w
    y = x_s * channel_gate(x_s, *channel, options)
    wanted = [x, *(t for t in flat if t is not None)]
    grads = iter(torch.autograd.grad(y, wanted, grad))
    return [y.detach(), next(grads), *(None if t is None else next(grads) for t in flat)]


def compare(found, x, grad, flat, options, dtype):
    """Errors against float64 over those of the reference in ``dtype``, by tensor."""
    exact = reference_of(x, grad, flat, options)
    plain = reference_of(x.to(dtype), grad.to(dtype), as_dtype(flat, dtype), options)
    assert [t is None for t in found] == [t is None for t in exact]
    named = ({n: t for n, t in zip(NAMES, ts, strict=True) if t is not None} for ts in (found, plain, exact))
    return ratios_of(*named, dtype)


def assert_equal_in_float64(x, grad, flat, options):
    found, _ = evaluate(kernels_of, x, grad, flat, options)
    exact = reference_of(x, grad, flat, options)
    for name, value, truth in zip(NAMES, found, exact, strict=True):
        if truth is None:
            assert value is None
        else:
            torch.testing.assert_close(value, truth, rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f'{n}: {m}')
    assert found[0].stride() == found[1].stride() == torch.empty_like(x).stride()


def as_dtype(flat, dtype):
    return [None if t is None else t.to(dtype) for t in flat]


def layout(x, channels_last):
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def supported():
    return [c for c in golden_cases() if not {'down_sample_mode', 'gate_layer'} & set(c['kwargs'])]


@pytest.mark.parametrize('case', supported(), ids=lambda case: Path(case['file']).stem)
def test_equals_the_published_module(case):
    channels_last = supported().index(case) % 2 == 1
    arrays = {name: torch.from_numpy(value).double() for name, value in golden_arrays(case).items()}
    flat = [arrays.get(f'param/{name}') for name in PARAMETERS]
    options = Options(case['kwargs']['head_num'], case['kwargs'].get('window_size', 7))
    x = layout(arrays['x'], channels_last)
    found, _ = evaluate(kernels_of, x, arrays['grad_y'], flat, options)
    assert found[0].stride() == found[1].stride() == x.stride()
    for name, value in zip(NAMES, found, strict=True):
        assert (value is None) == (name not in arrays)
        if value is not None:
            np.testing.assert_allclose(value, arrays[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize('name', CASES)
def test_equals_the_reference_in_float64(name):
    shape, kernels, qkv_bias, options, channels_last = CASES[name]
    x, grad, flat = draw(shape, kernels, qkv_bias, torch.float64)
    assert_equal_in_float64(layout(x, channels_last), grad, flat, options)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_is_as_exact_as_the_reference(dtype):
    """On average over the cases: one draw of a few numbers says little, and interpreting takes long."""
    names = list(CASES) if dtype == torch.float32 else list(CASES)[HALVES.index(dtype) :: 2]
    draws = []
    for name in names:
        shape, kernels, qkv_bias, options, channels_last = CASES[name]
        x, grad, flat = draw(shape, kernels, qkv_bias, dtype)
        given = layout(x.to(dtype), channels_last), grad.to(dtype), as_dtype(flat, dtype)
        found, _ = evaluate(kernels_of, *given, options)
        assert {t.dtype for t in found if t is not None} == {dtype}
        draws.append(compare(found, x, grad, flat, options, dtype))
    ratios = geometric_means(draws)
    assert all(ratio <= 1.5 for ratio in ratios.values()), ratios


def test_weights_of_another_dtype_and_a_gradient_with_gaps():
    """As under mixed precision, below an operation that expands its gradient."""
    shape = (2, 8, 8, 9)
    x, grad, flat = draw(shape, KERNELS, False, torch.float16)
    grad = grad[:, :, :, :1].expand(shape)
    given = [None if t is None else t.float() if i < 14 else t.half() for i, t in enumerate(flat)]
    found, _ = evaluate(kernels_of, x.half()[:, :, :, :], grad.half(), given, Options())
    assert [t.dtype for t in found[2:] if t is not None] == [t.dtype for t in given if t is not None]
    ratios = compare(found, x, grad, flat, Options(), torch.float16)
    assert all(ratio <= 1.5 for ratio in ratios.values()), ratios


def test_an_input_with_gaps():
    x, grad, flat = draw((2, 8, 8, 18), KERNELS, False, torch.float64)
    assert_equal_in_float64(x[..., ::2], grad[..., ::2], flat, Options())


def test_a_mean_far_from_zero():
    """The norms' second moments are those of deviations, so that a large mean costs no digits."""
    x, grad, flat = draw((1, 8, 15, 16), KERNELS, False, torch.float32)
    x = (x + 1000).float().double()
    found, _ = evaluate(kernels_of, x.float(), grad.float(), as_dtype(flat, torch.float32), Options())
    ratios = compare(found, x, grad, flat, Options(), torch.float32)
    assert geometric_means([{'all': ratio} for ratio in ratios.values()])['all'] <= 1.5, ratios


def test_the_same_bits_again():
    x, grad, flat = draw((2, 8, 9, 15), KERNELS, False, torch.float32)
    args = x.float(), grad.float(), as_dtype(flat, torch.float32), Options()
    first, second = (evaluate(kernels_of, *args)[0] for _ in range(2))
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def backend():
    from scsa_mm.ops.scsa import triton

    return triton


def on_meta(shape, dtype, kernels=KERNELS, qkv_bias=False, channels_last=False):
    """An input and weights with no numbers."""
    _, _, flat = draw((1, shape[1], 1, 1), kernels, qkv_bias, torch.float32)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.empty(shape, dtype=dtype, device='meta', memory_format=memory_format)
    return x, unflatten([t if t is None else t.to('meta') for t in flat])


def test_says_what_it_cannot_do(backend, monkeypatch):
    x, weights = on_meta((1, 4, 2, 2), torch.float32)
    assert backend.unsupported(x, weights, Options()) == 'x is on meta'
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    assert backend.unsupported(x, weights, Options()) == ''
    for options, reason in (
        (Options(gate='softmax'), "gate='softmax'"),
        (Options(down_sample_mode='max_pool'), "down_sample_mode='max_pool'"),
        (Options(attn_drop=0.1), 'attn_drop'),
    ):
        assert reason in backend.unsupported(x, weights, options)
    assert 'int32' in backend.unsupported(x.int(), weights, Options())
    assert '8 channels' in backend.unsupported(on_meta((1, 8, 2, 2), torch.float32)[0], weights, Options())
    assert 'too large' in backend.unsupported(on_meta((1, 4, 2**15, 2**14), torch.float32)[0], weights, Options())
    # By its pixels; by its columns, whose windows are found in float32; by parts of the convolutions' gradients.
    for shape in ((1, 4, 1103, 486737), (1, 4, 1, 8_200_000), (65535, 2560, 4, 4)):
        assert 'too large' in backend.unsupported(*on_meta(shape, torch.float16), Options(num_heads=shape[1] // 4))
    many = on_meta((1, 4, 2, 2), torch.float32, kernels=(3, 5, 7, 65))[1]
    assert 'kernel of 65' in backend.unsupported(x, many, Options())


def stages():
    """Of ResNet-50 at 800 x 1333."""
    return [(2, 64, 200, 336), (2, 128, 100, 168), (2, 256, 50, 84), (2, 512, 25, 42)]


@pytest.mark.parametrize('shape', stages(), ids=str)
def test_keeps_a_tenth_of_a_map_at_most(backend, shape):
    x = torch.empty(shape, device='meta')
    kept = sum(np.prod(size) for size, _ in backend.kept_like(x, Options()))
    assert kept <= 0.1 * np.prod(shape)


def plan_of(shape, dtype=torch.float32, channels_last=False, kernels=KERNELS, qkv_bias=False, window_size=7, heads=1):
    from scsa_mm.ops.scsa.triton_plan import make_plan

    window = tuple(size if window_size == -1 else min(window_size, size) for size in shape[2:])
    return make_plan(shape, dtype, channels_last, window, kernels, (qkv_bias,) * 3, heads, False, (torch.float32,) * 20)


def coco_sizes():
    """Heights and widths of COCO's images at 800/1333, padded to multiples of 32: every one that can be."""
    sizes = set()
    for width in range(200, 641, 8):
        for height in range(200, 641, 8):
            scale = min(800 / min(width, height), 1333 / max(width, height))
            sizes.add(tuple(-(-int(side * scale + 0.5) // 32) * 32 for side in (height, width)))
    assert len(sizes) > 50
    return sizes


@pytest.mark.parametrize('channels_last', [False, True], ids=['contiguous', 'channels-last'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_an_epoch_of_a_detector_compiles_few_kernels(dtype, channels_last):
    from scsa_mm.ops.launch import variants

    found = set()
    for height, width in coco_sizes():
        for stage, c in enumerate((64, 128, 256, 512)):
            stride = 4 * 2**stage
            found |= variants(plan_of((2, c, -(-height // stride), -(-width // stride)), dtype, channels_last).launches)
    assert len(found) <= 20, sorted(str(variant) for variant in found)


MULTIPROCESSORS = 132  # of an H100


@pytest.mark.parametrize('channels_last', [False, True], ids=['contiguous', 'channels-last'])
@pytest.mark.parametrize('shape', [*stages(), (64, 64, 56, 56), (64, 512, 7, 7), (2, 64, 512, 512)], ids=str)
def test_passes_over_maps_have_programs_for_a_large_gpu(shape, channels_last):
    """And everything else where it has the numbers for it: half a thousand a program."""
    b, c, h, w = shape
    plan = plan_of(shape, torch.float16, channels_last)
    numbers = {
        'pool': b * c * h * w, 'scale': b * c * h * w, 'strips': b * c * h * w, 'grad_sums': b * c * h * w,
        'grad_input': b * c * h * w, 'convolve': b * c * (h + w), 'gates': b * c * (h + w),
        'grad_gates': b * c * (h + w), 'grad_strips': b * c * (h + w),
    }  # fmt: skip
    for launch in plan.launches:
        if launch.kernel.__name__ in numbers:
            work = numbers[launch.kernel.__name__]
            assert np.prod(launch.grid) >= min(MULTIPROCESSORS, work // 512), launch.kernel.__name__


def test_parts_of_buffers_do_not_overlap():
    from scsa_mm.ops.launch import ALIGNMENT

    for name, (shape, kernels, qkv_bias, options, channels_last) in CASES.items():
        plan = plan_of(shape, torch.float16, channels_last, kernels, qkv_bias, options.window_size, options.num_heads)
        for launches in (plan.forward, plan.backward):
            for _, pointers in launches._steps:
                assert all(further * 2 % ALIGNMENT == 0 for _, further in pointers), name


@pytest.mark.skipif(interpreted(), reason='kernels that are interpreted are not compiled')
@pytest.mark.parametrize('capability, shape, dtype, channels_last, window_size', [
    (90, (2, 64, 200, 336), torch.float16, False, 7),
    (90, (2, 512, 25, 42), torch.float32, True, 7),
    (80, (2, 256, 50, 84), torch.bfloat16, False, 7),
    pytest.param(75, (1, 20, 37, 301), torch.float16, True, -1, marks=pytest.mark.slow),
])  # fmt: skip
def test_compiles(backend, capability, shape, dtype, channels_last, window_size):
    compile_all(backend, capability, shape, dtype, channels_last, window_size)


@pytest.mark.slow
@pytest.mark.skipif(interpreted(), reason='kernels that are interpreted are not compiled')
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', stages(), ids=str)
def test_compiles_at_every_stage(backend, shape, dtype):
    for capability in (80, 90):
        for channels_last in (False, True):
            compile_all(backend, capability, shape, dtype, channels_last, 7)


def compile_all(backend, capability, shape, dtype, channels_last, window_size):
    from scsa_mm.analysis.offline import compile_launch, launches_of

    x, weights = on_meta(shape, dtype, channels_last=channels_last)
    options = Options(window_size=window_size)

    def both():
        _, kept = backend.forward(x, weights, options)
        backend.backward(torch.empty_like(x), x, weights, options, kept)

    for launch in launches_of(both):
        compiled = compile_launch(launch, capability)
        # The attention holds many things at once; the others must not wait for local memory.
        assert compiled.spilled <= (64 if compiled.name.startswith('attend') else 16), compiled._replace(ptx='')
        assert compiled.shared <= 48 * 1024, compiled._replace(ptx='')
        if compiled.name == 'scale' or (channels_last and compiled.name in ('strips', 'grad_sums', 'grad_input')):
            assert 'ld.global.v4.b32' in compiled.ptx or 'ld.global.v2.b32' in compiled.ptx, compiled.name


def test_order_of_parameters():
    """Gradients come out of one buffer in the order of ``flatten``."""
    _, weights = on_meta((1, 8, 1, 1), torch.float32, qkv_bias=True)
    plan = plan_of((1, 8, 1, 1), qkv_bias=True)
    assert plan.gradients == [t.numel() for t in flatten(weights)]
    assert dict(plan.shapes) == {i: tuple(t.shape) for i, t in enumerate(flatten(weights)) if t.dim() > 1}
