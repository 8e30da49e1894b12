"""What the backends of EMA are tried on."""

import contextlib
import json
from pathlib import Path

import numpy as np
import torch

from scsa_mm.ops.ema import OPERATOR, Options
from tests.ops.exactness import FORMATS, error_ratios, results

GOLDEN = Path(__file__).parents[2] / 'data' / 'golden'
PARAMETERS = ('conv1x1.weight', 'conv1x1.bias', 'gn.weight', 'gn.bias', 'conv3x3.weight', 'conv3x3.bias')
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Shape of x and options. Vectors are of 4 to 16 numbers: rows of 16 and 64 need no padding, the others do.
CASES = {
    'pixel': ((1, 4, 1, 1), Options(2)),
    'pixel-of-one-channel': ((2, 3, 1, 1), Options(3)),
    'row': ((1, 4, 1, 13), Options(2)),
    'column': ((2, 6, 13, 1), Options(3)),
    'row-of-whole-vectors': ((1, 4, 1, 64), Options(2, unit=True)),
    '2x2': ((3, 8, 2, 2), Options(4)),
    '3x3': ((2, 9, 3, 3), Options(3)),
    'one-channel-a-group': ((2, 5, 11, 16), Options(5)),
    'two': ((2, 6, 23, 17), Options(3, unit=True)),
    'two-of-whole-vectors': ((1, 8, 18, 64), Options(4)),
    'three': ((1, 12, 9, 35), Options(4)),
    'sixteen': ((1, 32, 14, 21), Options(2)),
    'one-group-of-forty': ((2, 40, 7, 7), Options(1, unit=True)),
}
LAST = ('column', 'two', 'three', 'sixteen')  # of these, x is channels-last where only one format is tried


def draw_case(name):
    """``seed -> (x, grad, flat weights)`` in float64, as :mod:`tests.ops.exactness` wants it."""
    shape, options = CASES[name]
    c = shape[1] // options.groups

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)

        def normal(*size, mean=0.0, std=1.0):
            return mean + std * torch.randn(size, generator=generator, dtype=torch.float64)

        flat = [
            normal(c, c, 1, 1, std=c**-0.5),
            normal(c),
            normal(c, mean=1, std=0.5),
            normal(c),
            normal(c, c, 3, 3, std=(9 * c) ** -0.5),
            normal(c),
        ]
        return normal(*shape, mean=0.5), normal(*shape), flat

    return draw


def layout(name):
    return 'channels_last' if name in LAST else 'contiguous'


def assert_equal_to_the_reference(backend, name, memory_format):
    x, grad, flat = draw_case(name)(0)
    options = CASES[name][1]
    x = x.contiguous(memory_format=FORMATS[memory_format])
    exact = results(OPERATOR, 'reference', x, grad, flat, options)
    found = results(OPERATOR, backend, x, grad, flat, options)
    for key, value in exact.items():
        torch.testing.assert_close(found[key], value, rtol=1e-11, atol=1e-12, msg=lambda m, key=key: f'{key}: {m}')
    assert found['y'].stride() == x.stride() and found['grad_x'].stride() == x.stride()


@contextlib.contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_as_exact_as_the_reference(backend, name, dtype):
    with threads(1):  # so small maps are done before a second thread is awake
        ratios = error_ratios(OPERATOR, backend, draw_case(name), CASES[name][1], dtype, layout(name))
    assert all(ratio <= 1.5 for ratio in ratios.values()), ratios  # max() would overlook a NaN


def golden_cases():
    """The index entries of the published EMA."""
    return [case for case in json.loads((GOLDEN / 'index.json').read_text()) if case['module'] == 'EMA']


def assert_equal_to_the_published(backend, case, memory_format):
    arrays = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / case['file']).items()}
    x = arrays['x'].double().contiguous(memory_format=FORMATS[memory_format])
    flat = [arrays[f'param/{name}'].double() for name in PARAMETERS]
    options = Options(case['kwargs'].get('factor', 32))
    found = results(OPERATOR, backend, x, arrays['grad_y'].double(), flat, options)
    for value, name in zip(found.values(), ('y', 'grad_x', *(f'grad/{n}' for n in PARAMETERS)), strict=True):
        torch.testing.assert_close(value, arrays[name].double(), rtol=0, atol=1e-9, msg=lambda m, n=name: f'{n}: {m}')


def nan_in_fresh_memory(monkeypatch):
    """Fresh memory is often zero by chance."""
    for owner, name in (torch, 'empty'), (torch, 'empty_like'), (torch.Tensor, 'new_empty'):
        fresh = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, _fresh=fresh, **k: _fresh(*a, **k).fill_(float('nan')))


def assert_all_written(backend, name, memory_format):
    x, grad, flat = draw_case(name)(0)
    x = x.contiguous(memory_format=FORMATS[memory_format])
    for key, value in results(OPERATOR, backend, x, grad, flat, CASES[name][1]).items():
        assert value.isfinite().all(), key


def kept_maps(module, shape, options, dtype=torch.float32):
    """What forward keeps beside x, in maps of the size of x."""
    c = shape[1] // options.groups
    flat = [torch.randn(size) for size in ((c, c, 1, 1), (c,), (c,), (c,), (c, c, 3, 3), (c,))]
    x = torch.randn(shape).to(dtype)
    out, kept = module.forward(x, OPERATOR.unflatten(flat), options)
    assert all(t.untyped_storage().data_ptr() != out.untyped_storage().data_ptr() for t in kept)
    return sum(t.untyped_storage().nbytes() for t in kept) / x.nbytes
