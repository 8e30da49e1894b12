"""The operators inside torch.compile: opaque to it, each runs the fastest backend of its device.

Inductor cannot know the algebra: what it makes of the reference takes three times as long (README.md here). So
``scsa_mm::scsa`` and ``scsa_mm::ema`` stand in the graph, each with its backward. The compiler must know the shapes of
what forward keeps for backward before it runs: these are of the one backend that is made for the device. Where that
one cannot run after all, the reference does, and what is kept has no meaning.

torch.export and torch.func get the reference's plain operations; so does torch < 2.7, which does not tell whether it
exports.
"""

import hashlib
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from . import plain
from .arithmetic import dense
from .dispatch import FASTEST_FIRST, Choice, Operator, asked, attempt, first_of, log_choice
from .torch_versions import constant_when_compiled, is_exporting

NAMESPACE = 'scsa_mm'
# The backends that run inside compiled graphs.
IN_GRAPHS = tuple(names[0] for names in FASTEST_FIRST.values()) if is_exporting else ()


@constant_when_compiled
def _asked(backend: str) -> str:
    """What is asked for while compiling; it stays in the compiled code."""
    return asked(backend)


@constant_when_compiled  # dynamo has is_exporting() as always true
def _wants_operations() -> bool:
    return is_exporting() or torch._C._are_functorch_transforms_active()


@constant_when_compiled
def _sources(package: str) -> str:
    """A digest of the code that says what is kept: caches of compiled graphs outlive it, and must not meet another."""
    folder = Path(__file__).parent / package.rpartition('.')[2]
    return hashlib.sha256(b''.join(file.read_bytes() for file in sorted(folder.glob('*.py')))).hexdigest()[:16]


def suits(operator: Operator, x: Tensor, weights: Any, options: Any, backend: str) -> bool:
    """Whether the opaque operator can stand in the graph that is being made.

    All of this must be traceable. What ``first_of`` refuses beyond it, the operator leaves to the reference.
    """
    return (
        is_exporting is not None
        and not _wants_operations()
        and forward_ad._current_level < 0
        and x.device.type in FASTEST_FIRST
        and _asked(backend) in ('auto', FASTEST_FIRST[x.device.type][0])
        and not operator.unusual(options)
        and x.dim() == 4
        and x.is_floating_point()
        and all(type(t) in (Tensor, nn.Parameter) for t in (x, *operator.flatten(weights)) if t is not None)
    )


def call(operator: Operator, x: Tensor, weights: Any, options: Any) -> Tensor:
    """The output, by the opaque operator."""
    flat = operator.flatten(weights)
    present = [t is not None for t in flat]
    tensors = [t for t in flat if t is not None]
    return opaque(operator)(x, tensors, present, _sources(operator.package), *options)[0]


def opaque(operator: Operator, suffix: str = '') -> Any:
    """The operator as PyTorch has it; with the suffix ``_backward`` its backward."""
    return getattr(getattr(torch.ops, NAMESPACE), operator.name.lower() + suffix).default


def define(operator: Operator) -> None:
    """Make the operator known to PyTorch, once in a process: where its package is reloaded, the first one stays."""
    if is_exporting is None or hasattr(getattr(torch.ops, NAMESPACE), operator.name.lower()):
        return
    name = f'{NAMESPACE}::{operator.name.lower()}'
    options = ', '.join(f'{kind.__name__} {field}' for field, kind in operator.options_class.__annotations__.items())
    inputs = f'Tensor x, Tensor[] weights, bool[] present, str sources, {options}'

    def forward(x: Tensor, weights: list[Tensor], present: list[bool], sources: str, *options: Any) -> list[Tensor]:
        return _forward(operator, x, _unpacked(weights, present), operator.options_class(*options))

    def forward_shapes(
        x: Tensor, weights: list[Tensor], present: list[bool], sources: str, *options: Any
    ) -> list[Tensor]:
        return [torch.empty_like(dense(x)), *_kept_of(operator, x, operator.options_class(*options))]

    def backward(
        grad: Tensor, x: Tensor, weights: list[Tensor], present: list[bool], sources: str, *options_and_kept: Any
    ) -> list[Tensor]:
        *options, kept = options_and_kept
        flat = _unpacked(weights, present)
        grad_x, *grads = _backward(operator, grad, x, flat, operator.options_class(*options), kept)
        # One tensor, as results of an operator must not share memory, which gradients of some backends do.
        return [grad_x, torch.cat([g.reshape(-1) for g in grads if g is not None])]

    def backward_shapes(grad: Tensor, x: Tensor, weights: list[Tensor], *_: Any) -> list[Tensor]:
        return [torch.empty_like(dense(x)), torch.cat([w.reshape(-1) for w in weights])]

    def keep(ctx, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        x, weights, ctx.present, ctx.sources, *ctx.options = inputs
        ctx.save_for_backward(x, *weights, *output[1:])
        ctx.set_materialize_grads(False)

    def differentiate(ctx, grads: list[Tensor | None]) -> tuple[Any, ...]:
        x, *rest = ctx.saved_tensors
        count = sum(ctx.present)
        weights, kept = rest[:count], rest[count:]
        if torch.is_grad_enabled():  # to be differentiated again
            flat, options = _unpacked(weights, ctx.present), operator.options_class(*ctx.options)
            wanted = [t is not None and t.requires_grad for t in (x, *flat)]
            grad_x, *found = plain.gradients(operator, grads[0], x, flat, options, wanted)
            found = [g for g, there in zip(found, ctx.present, strict=True) if there]
        else:
            inputs = x, weights, ctx.present, ctx.sources, *ctx.options
            grad_x, packed = opaque(operator, '_backward')(grads[0], *inputs, kept)
            parts = packed.split([w.numel() for w in weights])
            found = [g.view(w.shape).to(w.dtype) for g, w in zip(parts, weights, strict=True)]
        return grad_x, found, *[None] * (2 + len(ctx.options))

    for suffix, schema, function, shapes in (
        ('', f'({inputs})', forward, forward_shapes),
        ('_backward', f'(Tensor grad, {inputs}, Tensor[] kept)', backward, backward_shapes),
    ):
        # Strides as they are, as those of the output are derived from them.
        tags = (torch.Tag.needs_exact_strides,)
        torch.library.define(name + suffix, f'{schema} -> Tensor[]', tags=tags)
        torch.library.impl(name + suffix, 'default', function)
        torch.library.register_fake(name + suffix, shapes)
    torch.library.register_autograd(name, differentiate, setup_context=keep)


def _unpacked(weights: Sequence[Tensor], present: Sequence[bool]) -> list[Tensor | None]:
    tensors = iter(weights)
    return [next(tensors) if there else None for there in present]


def _kept_of(operator: Operator, x: Tensor, options: Any) -> list[Tensor]:
    """As the device's own backend keeps them, filled with nan: what is not to be read should not pass for numbers."""
    try:
        module = importlib.import_module(f'{operator.package}.{FASTEST_FIRST[x.device.type][0]}')
    except Exception:  # of Triton, which is missing or of another version
        return []
    return [x.new_full(shape, math.nan, dtype=dtype) for shape, dtype in module.kept_like(dense(x), options)]


def _backend_of(operator: Operator, x: Tensor, flat: list[Tensor | None], options: Any) -> Choice:
    """The device's own backend or the reference.

    Of a call and its backward the same, since failures at a shape are remembered: what the reference keeps cannot be
    used. A failure of forward at other shapes may come between them; then the reference does without what was kept.
    """
    return first_of(operator, FASTEST_FIRST[x.device.type][:1], x, flat, options)


def _forward(operator: Operator, x: Tensor, flat: list[Tensor | None], options: Any) -> list[Tensor]:
    choice = _backend_of(operator, x, flat, options)
    log_choice(operator, x, choice)

    def run() -> list[Tensor]:
        y, kept = choice.module.forward(x, operator.unflatten(flat), options)
        return [y, *kept]

    def by_reference() -> list[Tensor]:
        return [plain.output(operator, x, flat, options), *_kept_of(operator, x, options)]

    return by_reference() if choice.module is None else attempt(operator, choice.backend, x, options, run, by_reference)


def _backward(
    operator: Operator, grad: Tensor, x: Tensor, flat: list[Tensor | None], options: Any, kept: list[Tensor]
) -> list[Tensor | None]:
    choice = _backend_of(operator, x, flat, options)

    def run() -> list[Tensor | None]:
        grad_x, grads = choice.module.backward(grad, x, operator.unflatten(flat), options, tuple(kept))
        return [grad_x, *grads]

    def by_reference() -> list[Tensor | None]:
        wanted = [True, *(t is not None for t in flat)]
        grad_x, *grads = plain.gradients(operator, grad, x, flat, options, wanted)
        return [torch.empty_like(dense(x)).copy_(grad_x), *grads]

    return by_reference() if choice.module is None else attempt(operator, choice.backend, x, options, run, by_reference)
