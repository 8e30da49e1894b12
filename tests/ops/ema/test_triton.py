"""The Triton kernels of EMA: interpreted where no GPU is, and compiled for GPUs that are not here."""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from scsa_mm.ops import gpu
from scsa_mm.ops.ema import reference
from scsa_mm.ops.ema.arguments import Options, unflatten
from tests.ops.interpreter import device, evaluate, interpreted

pytest.importorskip('triton', '3.2')

GOLDEN = Path(__file__).parents[2] / 'data' / 'golden'
PARAMETERS = ('conv1x1.weight', 'conv1x1.bias', 'gn.weight', 'gn.bias', 'conv3x3.weight', 'conv3x3.bias')
NAMES = ('y', 'grad_x', *(f'grad/{name}' for name in PARAMETERS))
DRAWS = 12
SLOW = pytest.mark.slow
SHAPES = {
    'pixel': ((1, 4, 1, 1), 4),
    'row': ((1, 8, 1, 13), 2),
    'c3': ((2, 12, 5, 3), 4),
    'c2': ((2, 6, 11, 19), 3),
    'c2-wide': ((1, 4, 6, 71), 2),
    'c4': ((2, 8, 3, 10), 2),
    'c16': ((1, 16, 6, 9), 1),
}
WIDER = ('c3', 'c2-wide', 'c16')
# Interpreting takes long: not each shape in each dtype and format, but each shape and dtype in both formats.
EXACT = [
    ('pixel', torch.float32, True),
    ('pixel', torch.bfloat16, False),
    ('row', torch.float32, False),
    ('row', torch.float16, True),
    ('c3', torch.float32, True),
    ('c3', torch.float16, False),
    ('c2', torch.float32, False),
    ('c2', torch.bfloat16, True),
    ('c2-wide', torch.float32, True),
    ('c2-wide', torch.bfloat16, False),
    ('c4', torch.float32, True),
    ('c4', torch.float16, False),
    ('c16', torch.float32, False),
    ('c16', torch.float16, True),
]


def draw(shape, groups, dtype, seed=0):
    """x, the gradient of the output and the parameters, in float64 but rounded to ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    c = shape[1] // groups

    def normal(*size, scale=1.0):
        return (torch.randn(size, generator=generator, dtype=torch.float64) * scale).to(dtype).double()

    x = normal(*shape) + 0.5
    flat = [normal(c, c, 1, 1, scale=c**-0.5), normal(c), normal(c), normal(c), normal(c, c, 3, 3, scale=0.3 / c**0.5)]
    return x.to(dtype).double(), normal(*shape), [*flat, normal(c)]


# How plans can be bent, so that small maps have what large ones have: tiles that a program goes through step by step,
# many chunks of what is added up for parameters.
WIDE = {'PROGRAMS': 1, 'PLACES': 1}


def kernels_of(x, grad, flat, options, wide=False):
    """Output and gradients from the kernels; in the interpreter's process."""
    from scsa_mm.ops.ema import triton

    if wide:
        with mock.patch.multiple(triton, **WIDE, make_plan=triton.make_plan.__wrapped__):
            return kernels_of(x, grad, flat, options)

    x, grad = x.to(device()), grad.to(device())
    weights = unflatten([None if t is None else t.to(device()) for t in flat])
    assert triton.unsupported(x, weights, options) == ''
    empty, empty_like = torch.empty, torch.empty_like
    # What a kernel forgets to write is zero by chance in fresh memory; here it is not a number.
    with (
        mock.patch.object(torch, 'empty', lambda *a, **k: empty(*a, **k).fill_(float('nan'))),
        mock.patch.object(torch, 'empty_like', lambda *a, **k: empty_like(*a, **k).fill_(float('nan'))),
    ):
        out, kept = triton.forward(x, weights, options)
        assert [(tuple(t.shape), t.dtype) for t in kept] == triton.kept_like(x, options)
        dx, dflat = triton.backward(grad, x, weights, options, kept)
    values = [out, dx, *dflat]
    return [None if t is None else t.cpu() for t in values]


def plan_of(shape, dtype, channels_last, groups=32):
    from scsa_mm.ops.ema import triton

    return triton.make_plan(shape, dtype, channels_last, groups, False, (torch.float32,) * 6, False)


def reference_of(x, grad, flat, options):
    x = x.clone().requires_grad_()
    flat = [None if t is None else t.clone().requires_grad_() for t in flat]
    y = reference.ema(x, unflatten(flat), options)
    wanted = [x, *(t for t in flat if t is not None)]
    grads = iter(torch.autograd.grad(y, wanted, grad))
    return [y.detach(), next(grads), *(None if t is None else next(grads) for t in flat)]


def check(found, draws, options, dtype):
    """Errors against float64 are at most 1.5 times those of the reference in ``dtype``.

    ``found`` is for the first draw. With few numbers, or a sum that nearly cancels (the gradients of the 1x1
    convolution are one), a single draw says little: the reference's error is the largest of all draws (each a root
    mean square). It counts as no better than four units in the last place of the tensor's largest number, since it is
    exact by chance now and then; for a parameter, of a twentieth of the largest such gradient at least.
    """
    exact = reference_of(*draws[0], options)
    theirs = [0.0] * len(exact)
    for x, grad, flat in draws:
        truth = reference_of(x, grad, flat, options)
        plain = reference_of(x.to(dtype), grad.to(dtype), [None if t is None else t.to(dtype) for t in flat], options)
        theirs = [old if t is None else max(old, error(p, t)) for old, p, t in zip(theirs, plain, truth, strict=True)]
    largest = max(t.abs().max().item() for t in exact[2:] if t is not None)
    ratios = {}
    for name, value, reached, truth in zip(NAMES, found, theirs, exact, strict=True):
        if truth is None:
            assert value is None
            continue
        assert value.shape == truth.shape
        size = max(truth.abs().max().item(), largest / 20 if name.startswith('grad/') else 0)
        floor = 2 * torch.finfo(dtype).eps * size
        ratios[name] = error(value, truth) / max(reached, floor)
    assert all(ratio <= 1.5 for ratio in ratios.values()), ratios  # max() would overlook a NaN


def error(value, truth):
    return (value.double() - truth).square().mean().sqrt().item()


def layout(x, channels_last):
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize(
    'file,channels_last', [pytest.param('ema_f8', False, marks=SLOW), ('ema_f8', True), ('ema_f32', True)]
)
def test_equals_the_published_module(file, channels_last):
    case = next(c for c in json.loads((GOLDEN / 'index.json').read_text()) if c['file'].endswith(f'{file}.npz'))
    arrays = {name: torch.from_numpy(value).double() for name, value in np.load(GOLDEN / case['file']).items()}
    flat = [arrays[f'param/{name}'] for name in PARAMETERS]
    options = Options(case['kwargs'].get('factor', 32))
    x = layout(arrays['x'], channels_last)
    found = evaluate(kernels_of, x, arrays['grad_y'], flat, options)
    assert found[0].stride() == found[1].stride() == x.stride()
    for name, value in zip(NAMES, found, strict=True):
        np.testing.assert_allclose(value, arrays[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize('name,dtype,channels_last', EXACT, ids=str)
def test_is_as_exact_as_the_reference(name, dtype, channels_last):
    shape, groups = SHAPES[name]
    options = Options(groups, unit=name in ('c3', 'c16'))
    draws = [draw(shape, groups, dtype, seed) for seed in range(DRAWS)]
    x, grad, flat = draws[0]
    x_ = layout(x.to(dtype), channels_last)
    wide = name in WIDER
    found = evaluate(kernels_of, x_, grad.to(dtype), [t.to(dtype) for t in flat], options, wide)
    assert {t.dtype for t in found} == {dtype}
    assert found[0].stride() == found[1].stride() == x_.stride()
    check(found, draws, options, dtype)


def test_weights_of_another_dtype_and_format_missing_biases_and_a_gradient_with_gaps():
    """As under mixed precision, in a channels-last model, below an operation that expands its gradient."""
    shape, groups = (2, 6, 4, 5), 2
    x, grad, flat = draw(shape, groups, torch.float16)
    grad = grad[:, :, :, :1].expand(shape)
    flat[1] = flat[5] = None
    given = [None if t is None else t.float() for t in flat]
    given[4] = layout(given[4], True)
    options = Options(groups)
    found = evaluate(kernels_of, x.half(), grad.half(), given, options)
    assert [t.dtype for t in found if t is not None] == [torch.float16] * 2 + [torch.float32] * 4
    assert found[6].stride() == given[4].stride()
    check(found, [(x, grad, flat)], options, torch.float16)


@pytest.mark.parametrize('shape,channels_last', [((1, 17, 3, 2), False), pytest.param((1, 40, 2, 3), True, marks=SLOW)])
def test_many_channels_a_group(shape, channels_last):
    draws = [draw(shape, 1, torch.float32, seed) for seed in range(DRAWS)]
    x, grad, flat = draws[0]
    found = evaluate(kernels_of, layout(x.float(), channels_last), grad.float(), [t.float() for t in flat], Options(1))
    check(found, draws, Options(1), torch.float32)


def test_a_map_of_one_pixel_has_no_branch_1():
    """There y - mu is 0 in the reference, also in float32."""
    x, grad, flat = draw((3, 6, 1, 1), 2, torch.float32)
    found = evaluate(kernels_of, x.float(), grad.float(), [t.float() for t in flat], Options(2))
    assert not found[NAMES.index('grad/conv1x1.weight')].any()
    assert not found[NAMES.index('grad/gn.weight')].any()


def test_a_mean_far_from_zero():
    """The second moment is that of deviations, so that a large mean costs no digits."""
    draws = [draw((1, 2, 9, 70), 1, torch.float32, seed) for seed in range(DRAWS)]
    for _, _, flat in draws:  # so small that no sigmoid is saturated
        flat[0], flat[4] = (flat[0] / 1000).float().double(), (flat[4] / 1000).float().double()
    draws = [((x + 1000).float().double(), grad, flat) for x, grad, flat in draws]
    x, grad, flat = draws[0]
    found = evaluate(kernels_of, x.float(), grad.float(), [t.float() for t in flat], Options(1), True)
    check(found, draws, Options(1), torch.float32)


def test_the_same_bits_again():
    x, grad, flat = draw((1, 2, 19, 17), 1, torch.float32)
    args = x.float(), grad.float(), [t.float() for t in flat], Options(1)
    first, second = (evaluate(kernels_of, *args) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_says_what_it_cannot_do():
    from scsa_mm.ops.ema import triton

    def weights(c):
        return unflatten([torch.empty(size, device='meta') for size in ((c, c, 1, 1), c, c, c, (c, c, 3, 3), c)])

    x = torch.empty(1, 4, 2, 2)
    if not torch.cuda.is_available():
        assert 'on cpu' in triton.unsupported(x, weights(2), Options(2))
    large = torch.empty(1, device='meta').expand(1, 64, 2**13, 2**13)
    with mock.patch.object(gpu, 'interpreted', return_value=True):
        assert triton.unsupported(x, weights(2), Options(2)) == ''
        assert 'weights of' in triton.unsupported(x, weights(1), Options(2))
        assert 'channels a group' in triton.unsupported(torch.empty(1, 512, 1, 1), weights(512), Options(1))
        assert 'too large' in triton.unsupported(large, weights(2), Options())
        assert 'empty' in triton.unsupported(x[:0], weights(2), Options(2))
        assert 'int32' in triton.unsupported(x.int(), weights(2), Options(2))


# ResNet-50's stages in a detector: (B, C, H, W).
STAGES = [(2, 64, 200, 336), (2, 128, 100, 168), (2, 256, 50, 84), (2, 512, 25, 42)]
COMPILED = [
    (90, torch.float16, False, STAGES[0]),
    *(
        pytest.param(capability, dtype, channels_last, stage, marks=SLOW)
        for capability in (80, 90)
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
        for channels_last in (False, True)
        for stage in [*STAGES, (16, 64, 200, 336), (1, 64, 1, 1), (2, 2048, 7, 7)]
    ),
]


@pytest.mark.skipif(interpreted(), reason='kernels cannot be compiled when Triton interprets them')
@pytest.mark.parametrize('capability,dtype,channels_last,shape', COMPILED, ids=str)
def test_compiles_for_gpus_and_stays_in_registers(capability, dtype, channels_last, shape):
    from scsa_mm.analysis.offline import compile_launch, launches_of
    from scsa_mm.ops.ema import triton

    c = shape[1] // 32
    weights = unflatten([torch.empty(s) for s in ((c, c, 1, 1), c, c, c, (c, c, 3, 3), c)])
    x = layout(torch.empty(shape, dtype=dtype), channels_last)

    def both_passes():
        out, kept = triton.forward(x, weights, Options())
        # One map a group, and strips.
        assert kept[0].numel() == x.numel() // c
        assert kept[1].numel() <= 2 * shape[0] * shape[1] * (sum(shape[2:]) + 10) + 9 * shape[1] + 200
        triton.backward(out, x, weights, Options(), kept)

    launches = launches_of(both_passes)
    assert len(launches) == 12
    for launch in launches:
        compiled = compile_launch(launch, capability)
        # Some put a few of their registers aside (above 32 channels a group, many); a program that takes 48 KiB runs
        # alone on many GPUs.
        assert compiled.spilled <= 192 or c > 32, compiled._replace(ptx='')
        assert compiled.shared < 16 * 1024, compiled._replace(ptx='')
        # Ten warps fit on a multiprocessor, 16 of one that works on contiguous maps.
        assert compiled.registers <= 200, compiled._replace(ptx='')


@pytest.mark.parametrize('dtype,channels_last', [(torch.float32, False), (torch.bfloat16, True)], ids=str)
def test_an_epoch_of_many_sizes_compiles_few_variants(dtype, channels_last):
    """COCO at 800/1333, padded to multiples of 32: each variant is a second of a training in which nothing happens."""
    from scsa_mm.ops import launch

    sizes = [(800, w) for w in range(800, 1345, 32)] + [(h, 1344) for h in range(544, 800, 32)]
    found = set()
    for h, w in sizes + [size[::-1] for size in sizes]:
        for stage in range(4):
            shape = 2, 64 << stage, h >> stage + 2, w >> stage + 2
            found |= launch.variants(plan_of(shape, dtype, channels_last).launches)
    assert len(found) <= 20, sorted(variant.kernel.__name__ for variant in found)


@pytest.mark.parametrize('channels_last', [False, True])
def test_no_kernel_leaves_a_gpu_idle(channels_last):
    """Programs and warps of all launches whose work grows with the map, on 132 multiprocessors."""
    for shape in [*STAGES, (64, 512, 7, 7), (256, 512, 7, 7)]:
        plan = plan_of(shape, torch.bfloat16, channels_last)
        for launch in plan.launches:
            name = launch.kernel.__name__
            if name not in ('strips', 'norm', 'norm_grad', 'parameter_grad'):
                warps = launch.grid[0] * launch.constants.get('num_warps', 4)
                assert launch.grid[0] >= 132 and warps >= 132 * 2, (shape, name, launch.grid)
