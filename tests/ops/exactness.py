"""How exact a backend is, measured against the plain reference in float64."""

import math

import torch

from scsa_mm.ops.dispatch import choose
from scsa_mm.ops.function import run

FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
# A single draw of a few numbers says little about an error, and the mean of eight was off by a third on one processor
# or another; in narrow types all the less separates the two.
SEEDS = {torch.float32: 24, torch.bfloat16: 2, torch.float16: 2}


def results(operator, backend, x, grad, flat, options):
    """Output and all gradients, by name."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    flat = [None if t is None else t.clone().requires_grad_() for t in flat]
    weights = operator.unflatten(flat)
    choice = choose(operator, x, weights, options, backend)
    assert choice.backend == backend, str(choice)
    y = run(operator, x, weights, options, backend)
    y.backward(grad)
    found = {'y': y.detach(), 'grad_x': x.grad}
    found.update({f'grad {i}': t.grad for i, t in enumerate(flat) if t is not None})
    return found


def error_ratios(operator, backend, draw, options, dtype, memory_format='contiguous'):
    """The backend's error over that of the reference in the same dtype, by tensor; an error as large gives 1 or less.

    Args:
        draw: ``seed -> (x, grad, flat weights)`` in float64.
        memory_format: Of x; ``grad`` has the other one.

    The geometric mean over all seeds of ratios of root mean square errors. To that of the reference comes half a unit
    in the last place of the tensor, which a result can be off by rounding alone; of at least a hundredth of the largest
    tensor, as a gradient that is zero by cancellation is known no better.
    """
    other = {'contiguous': 'channels_last', 'channels_last': 'contiguous'}[memory_format]
    draws = []
    for seed in range(SEEDS[dtype]):
        x, grad, flat = draw(seed)
        x, grad, *flat = (None if t is None else t.to(dtype) for t in (x, grad, *flat))
        x = x.contiguous(memory_format=FORMATS[memory_format])
        grad = grad.contiguous(memory_format=FORMATS[other])
        exact = results(operator, 'reference', *_double(x, grad), _double(*flat), options)
        plain = results(operator, 'reference', x, grad, flat, options)
        fast = results(operator, backend, x, grad, flat, options)
        assert fast['y'].is_contiguous(memory_format=FORMATS[memory_format])
        assert {value.dtype for value in fast.values()} == {dtype}
        draws.append(ratios_of(fast, plain, exact, dtype))
    return geometric_means(draws)


def ratios_of(fast, plain, exact, dtype):
    """Errors of ``fast`` over those of ``plain``, with the allowance that :func:`error_ratios` tells, by name."""
    sizes = {name: _rms(truth) for name, truth in exact.items()}
    ratios = {}
    for name, truth in exact.items():
        rounding = torch.finfo(dtype).eps / 2 * max(sizes[name], 1e-2 * max(sizes.values()))
        ratios[name] = _rms(fast[name] - truth) / (_rms(plain[name] - truth) + rounding)
    return ratios


def geometric_means(draws):
    """By name, of all draws that have it; a ratio of NaN stays one."""
    names = dict.fromkeys(name for draw in draws for name in draw)
    logs = {name: [math.log(draw[name] + 1e-9) for draw in draws if name in draw] for name in names}
    return {name: math.exp(sum(values) / len(values)) for name, values in logs.items()}


def _rms(values):
    return values.double().square().mean().sqrt().item()


def _double(*tensors):
    return [None if t is None else t.double() for t in tensors]
