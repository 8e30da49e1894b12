"""One log line about the attention in a model."""

from collections import Counter

from torch import nn

from ..registry import MODELS


def describe_attention(model: nn.Module) -> str:
    """How many modules of which kind, their parameters, and how many of these a frozen stage keeps from training."""
    kinds = tuple(MODELS.module_dict.values())
    modules = [m for m in model.modules() if isinstance(m, kinds)]
    if not modules:
        return 'attention of scsa_mm: none'
    counts = ', '.join(f'{n} x {name}' for name, n in Counter(type(m).__name__ for m in modules).items())
    parameters = [p for m in modules for p in m.parameters()]
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    text = f'attention of scsa_mm: {counts}, {sum(p.numel() for p in parameters):,} parameters'
    if frozen:
        text += f', {frozen:,} of them frozen (they stay as they start: see frozen_stages)'
    return text
