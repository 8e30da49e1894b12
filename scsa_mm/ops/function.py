"""Run an operator with its fastest backend, as one step of autograd."""

from typing import Any

import torch
from torch import Tensor

from . import compiled, plain
from .dispatch import Choice, Operator, attempt, choose, give_up, log_choice, out_of_memory, with_free_memory
from .torch_versions import is_compiling


def run(operator: Operator, x: Tensor, weights: Any, options: Any, backend: str = 'auto') -> Tensor:
    """The operator's output for x (B, C, H, W), in its dtype.

    Args:
        operator: What to compute.
        x: Feature map.
        weights: As the operator's reference takes them.
        options: Likewise.
        backend: One of ``dispatch.BACKENDS``.

    Raises:
        ValueError: if there is no such backend.
    """
    if is_compiling():  # first, as nothing of the choice can be compiled
        if compiled.suits(operator, x, weights, options, backend):
            return compiled.call(operator, x, weights, options)
        return operator.reference(x, weights, options)
    choice = choose(operator, x, weights, options, backend)
    log_choice(operator, x, choice)
    if choice.module is None:
        return operator.reference(x, weights, options)
    flat = operator.flatten(weights)
    try:
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *flat)):
            return _Exact.apply(operator, choice, weights, options, x, *flat)
        return _forward(choice, x, weights, options)[0]
    except _BackendFailed as failure:
        y = operator.reference(x, weights, options)  # raises the user's own mistake, in PyTorch's words
        give_up(operator, choice.backend, x, options, failure.__cause__)
        return y


class _BackendFailed(Exception):
    """Its cause says why. Of its own type: activation checkpointing ends a forward pass by an exception."""


def _forward(choice: Choice, x: Tensor, weights: Any, options: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    try:
        return with_free_memory(lambda: choice.module.forward(x, weights, options))
    except Exception as error:
        if out_of_memory(error):
            raise  # the reference needs more
        raise _BackendFailed from error


class _Exact(torch.autograd.Function):
    """Keeps x, the weights and what the backend names; all of which activation checkpointing can take over."""

    @staticmethod
    def forward(
        ctx, operator: Operator, choice: Choice, weights: Any, options: Any, x: Tensor, *flat: Tensor | None
    ) -> Tensor:
        y, kept = _forward(choice, x, weights, options)
        ctx.operator, ctx.choice, ctx.options, ctx.count = operator, choice, options, len(flat)
        ctx.save_for_backward(x, *flat, *kept)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        flat, kept = rest[: ctx.count], tuple(rest[ctx.count :])

        def run() -> list[Tensor | None]:
            weights = ctx.operator.unflatten(flat)
            grad_x, grads = ctx.choice.module.backward(grad, x, weights, ctx.options, kept)
            return [grad_x, *grads]

        def by_reference() -> list[Tensor | None]:
            return plain.gradients(ctx.operator, grad, x, flat, ctx.options, ctx.needs_input_grad[4:])

        if torch.is_grad_enabled():  # to be differentiated again
            return *[None] * 4, *by_reference()
        return *[None] * 4, *attempt(ctx.operator, ctx.choice.backend, x, ctx.options, run, by_reference)
