"""The reference in place of a fast backend: its output and its gradients, whatever dtypes the weights have."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .arithmetic import dense, sum_dtype, without_autocast
from .dispatch import Operator


def output(operator: Operator, x: Tensor, flat: Sequence[Tensor | None], options: Any) -> Tensor:
    """In the dtype and memory format of x, also under autocast."""
    with without_autocast(x):
        return torch.empty_like(dense(x)).copy_(_in_one_dtype(operator, [x, *flat], options))


def gradients(
    operator: Operator, grad: Tensor, x: Tensor, flat: Sequence[Tensor | None], options: Any, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of x and of all weights by autograd, None where not wanted.

    With gradients enabled they can be differentiated again (``create_graph=True``).
    """
    again = torch.is_grad_enabled()
    inputs = [x, *flat]
    with torch.enable_grad(), without_autocast(x):
        if again:  # aliases: where x itself depends on the weights, that path belongs to the graph around this one
            inputs = [None if t is None else t.view_as(t) for t in inputs]
        else:
            inputs = [None if t is None else t.detach().requires_grad_(w) for t, w in zip(inputs, wanted, strict=True)]
        y = _in_one_dtype(operator, inputs, options).to(grad.dtype)
        sought = [t for t, w in zip(inputs, wanted, strict=True) if w]
        found = iter(torch.autograd.grad(y, sought, grad, create_graph=again))
    return [next(found) if w else None for w in wanted]


def _in_one_dtype(operator: Operator, inputs: Sequence[Tensor | None], options: Any) -> Tensor:
    """Under autocast weights have another dtype than x, and backward runs outside of it."""
    dtype = sum_dtype(inputs[0])
    x, *flat = (None if t is None else t.to(dtype) for t in inputs)
    return operator.reference(x, operator.unflatten(flat), options)
