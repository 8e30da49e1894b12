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
        if torch.is_grad_enabled() and (x.requires_grad or any(t is not None and t.requires_grad for t in flat)):
            return _apply((operator, choice, weights, options), x, *flat)
        return _forward(choice, x, weights, options)[0]
    except _BackendFailed as failure:
        y = operator.reference(x, weights, options)  # raises the user's own mistake, in PyTorch's words
        give_up(operator, choice.backend, x, options, failure.__cause__)
        return y


class _BackendFailed(Exception):
    """Its cause says why. Of its own type: activation checkpointing ends a forward pass by an exception."""


def _forward(choice: Choice, x: Tensor, weights: Any, options: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    try:
        return with_free_memory(choice.module.forward, x, weights, options)
    except Exception as error:
        if out_of_memory(error):
            raise  # the reference needs more
        raise _BackendFailed from error


class _Exact(torch.autograd.Function):
    """Keeps x, the weights and what the backend names; all of which activation checkpointing can take over."""

    @staticmethod
    def forward(ctx, given: tuple[Operator, Choice, Any, Any], x: Tensor, *flat: Tensor | None) -> Tensor:
        operator, choice, weights, options = given
        y, kept = _forward(choice, x, weights, options)
        ctx.given = operator, choice, options, len(flat) + 1
        ctx.save_for_backward(x, *flat, *kept)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        operator, choice, options, end = ctx.given
        saved = ctx.saved_tensors
        x, flat, kept = saved[0], saved[1:end], saved[end:]

        def run() -> tuple[Tensor | None, ...]:
            grad_x, grads = choice.module.backward(grad, x, operator.unflatten(flat), options, kept)
            return None, grad_x, *grads

        def by_reference() -> tuple[Tensor | None, ...]:
            return None, *plain.gradients(operator, grad, x, flat, options, ctx.needs_input_grad[1:])

        if torch.is_grad_enabled():  # to be differentiated again
            return by_reference()
        return attempt(operator, choice.backend, x, options, run, by_reference)


# Without the way through Python around it, which looks at each tensor for a transform that is over.
_apply = super(torch.autograd.Function, _Exact).apply
