"""One log line about the attention in a model."""

from collections import Counter

from torch import nn

from .. import attention
from ..plugging import inserted

KINDS = tuple(getattr(attention, name) for name in attention.__all__)


def attention_in(model: nn.Module) -> dict[str, nn.Module]:
    """Every attention module by its path: those of this package, and any other that it inserted."""
    others = inserted(model)
    return {path: m for path, m in model.named_modules() if isinstance(m, KINDS) or path in others}


def describe_attention(model: nn.Module) -> str:
    """How many modules of which kind, their parameters, and how many of these a frozen stage keeps from training."""
    modules = list(attention_in(model).values())
    if not modules:
        return 'attention: none'
    counts = ', '.join(f'{n} x {name}' for name, n in Counter(type(m).__name__ for m in modules).items())
    parameters = [p for m in modules for p in m.parameters()]
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    text = f'attention: {counts}, {sum(p.numel() for p in parameters):,} parameters'
    if frozen:
        text += f', {frozen:,} of them frozen (they stay as they start: see frozen_stages)'
    return text
