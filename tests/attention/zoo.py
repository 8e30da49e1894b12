"""Every registered attention module with the settings that the tests use: a new module gets one line here.

All take 4 channels and more, in multiples of 4.
"""

import functools
import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

from scsa_mm.attention import CA, CBAM, CPCA, ECA, ELA, EMA, ESE, FCA, GC, PCSA, SA, SCSA, SE, SK, SMSA, NonLocal

MODULES: dict[str, Callable[..., nn.Module]] = {
    'SCSA': SCSA,
    'SCSA-heads-bias': functools.partial(SCSA, num_heads=4, qkv_bias=True),
    'SCSA-max-softmax': functools.partial(SCSA, down_sample_mode='max_pool', gate='softmax'),
    'SCSA-global': functools.partial(SCSA, window_size=-1),
    'SMSA': SMSA,
    'SMSA-softmax': functools.partial(SMSA, gate='softmax'),
    'PCSA': PCSA,
    'PCSA-softmax': functools.partial(PCSA, gate='softmax'),
    'EMA': functools.partial(EMA, groups=4),
    'SE': functools.partial(SE, reduction=4),
    'ESE': ESE,
    'ECA': ECA,
    'ECA-kernel': functools.partial(ECA, kernel_size=5),
    'CBAM': functools.partial(CBAM, reduction=4, min_channels=2),
    'CA': functools.partial(CA, reduction=4, min_channels=2),
    'ELA': functools.partial(ELA, num_groups=4),
    'SK': functools.partial(SK, groups=2, reduction=4, min_channels=2),
    'SK-three': functools.partial(SK, num_branches=3, groups=4, reduction=4, min_channels=2),
    'FCA': functools.partial(FCA, num_freq=4, reduction=4),
    'FCA-14x7': functools.partial(FCA, num_freq=2, dct_h=14, reduction=2),
    'CPCA': functools.partial(CPCA, reduction=4),
    'SA': functools.partial(SA, groups=2),
    'GC': functools.partial(GC, reduction=4),
    'NonLocal': NonLocal,
    'NonLocal-dot': functools.partial(NonLocal, reduction=4, mode='dot_product'),
}
# The documented exceptions.
REGROUPING = {EMA, SA}  # the memory format is lost
NO_EMPTY_BATCH = {ECA, NonLocal}
VECTOR_NORM = {SK}  # normalises one vector an image with batch statistics


def class_of(name: str) -> type[nn.Module]:
    build = MODULES[name]
    return build.func if isinstance(build, functools.partial) else build


def make(name: str, in_channels: int) -> nn.Module:
    """The module with a value in every parameter: some start at 0, as the identity."""
    module = MODULES[name](in_channels)
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return module


IDENTITY = [name for name in MODULES if 'identity_init' in inspect.signature(class_of(name)).parameters]

every_module = pytest.mark.parametrize('name', MODULES)
every_identity = pytest.mark.parametrize('build', [MODULES[name] for name in IDENTITY], ids=IDENTITY)


def run(module: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradient of the input, gradient of each parameter."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    y = module(x)
    y.backward(grad)
    return [y.detach(), x.grad, *(p.grad.clone() for p in module.parameters())]
