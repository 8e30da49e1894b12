"""Which implementation of an operator runs.

An operator has a plain reference, which runs everywhere, and faster backends, which are exact too:

- ``triton``: kernels for NVIDIA GPUs;
- ``cpp``: compiled loops for the CPU;
- ``lean``: PyTorch on any device, with little memory.

``auto`` takes the fastest for the device that can run. Another can be asked for, in this order of precedence: the
argument ``backend`` of a module or function, :func:`use_backend`, the environment variable SCSA_MM_BACKEND. What cannot
run is replaced by the next that can, with one line in the log: nothing fails that the reference could compute.
"""

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import attrgetter
from types import ModuleType
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils import _python_dispatch

from . import gpu
from .torch_versions import OutOfMemoryError

VARIABLE = 'SCSA_MM_BACKEND'
BACKENDS = ('auto', 'triton', 'cpp', 'lean', 'reference')
FASTEST_FIRST = {'cuda': ('triton', 'lean'), 'cpu': ('cpp', 'lean')}

FAILURES = 3  # shapes at which a backend fails for one reason before that is held to be the reason at all shapes
MOST_CHOICES = 1024

_asked: ContextVar[str] = ContextVar('scsa_mm_backend', default='')
# (operator, backend, device, dtype), where shapes do not matter, or with shape and options after these: why it is not
# tried again in this process.
_failed: dict[tuple[Any, ...], str] = {}
# Choices by all that they depend on, as to find one costs the host more than to launch a kernel.
_chosen: dict[tuple[Any, ...], 'Choice'] = {}
_logged: set[tuple[Any, ...]] = set()
_shape, _dtype, _device = map(attrgetter, ('shape', 'dtype', 'device'))


@dataclass(frozen=True)
class Operator:
    """An operator on feature maps.

    Args:
        name: As the log has it.
        package: Where its backends are, one module each.
        reference: ``(x, weights, options) -> Tensor`` in plain PyTorch.
        options_class: Of its options, a NamedTuple.
        flatten: Weights to a list of tensors, None for one that is missing.
        unflatten: And back.
        unusual: Which option no backend made for one device has; empty if they have all.
    """

    name: str
    package: str
    reference: Callable[[Tensor, Any, Any], Tensor]
    options_class: type
    flatten: Callable[[Any], list[Tensor | None]]
    unflatten: Callable[[Sequence[Tensor | None]], Any]
    unusual: Callable[[Any], str] = lambda options: ''


@dataclass(frozen=True)
class Choice:
    """The backend that runs, and why not those before it.

    Args:
        backend: Its name.
        module: Its module; None for the reference.
        refused: Other backends and the reasons.
        worth_a_line: Whether the log should have it; not where plain operations are what is wanted, as when tracing.
    """

    backend: str
    module: ModuleType | None
    refused: tuple[tuple[str, str], ...] = ()
    worth_a_line: bool = True
    logs: set[str] = field(default_factory=set, compare=False)  # that have the line

    def __str__(self) -> str:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in self.refused)
        return f'{self.backend} ({reasons})' if reasons else self.backend


def check_backend(name: str, where: str) -> str:
    """The name, if there is such a backend.

    Raises:
        ValueError: if not.
    """
    if name not in BACKENDS:
        raise ValueError(f'{where} must be one of {", ".join(map(repr, BACKENDS))}, got {name!r}')
    return name


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Ask for a backend in this block and thread, as ``with use_backend('reference'):``.

    Raises:
        ValueError: if there is no such backend.
    """
    token = _asked.set(check_backend(name, 'backend'))
    try:
        yield
    finally:
        _asked.reset(token)


def asked(backend: str = 'auto') -> str:
    """What was asked for, by the argument or else by the block or the variable.

    Raises:
        ValueError: if the variable names no backend.
    """
    if backend != 'auto':
        return backend
    if name := _asked.get():
        return name
    name = os.environ.get(VARIABLE)
    return check_backend(name, f'the variable {VARIABLE}') if name else 'auto'


def choose(operator: Operator, x: Tensor, weights: Any, options: Any, backend: str = 'auto') -> Choice:
    """The backend for this input, found without running it; the first call on a machine may compile."""
    backend = asked(backend)
    if backend == 'reference':
        return Choice('reference', None)
    if reason := _needs_plain_operations(x):
        return _plain(reason)
    fastest = FASTEST_FIRST.get(x.device.type, ('lean',))
    names = fastest if backend == 'auto' else tuple(dict.fromkeys((backend, *fastest)))
    return first_of(operator, names, x, operator.flatten(weights), options)


def first_of(
    operator: Operator, names: tuple[str, ...], x: Tensor, flat: Sequence[Tensor | None], options: Any
) -> Choice:
    """The first of these backends that can run, else the reference; remembered for shapes, dtypes and devices."""
    there = [t for t in (x, *flat) if t is not None]
    facts = tuple(map(_shape, there)), tuple(map(_dtype, there)), tuple(map(_device, there)), tuple(map(type, flat))
    key = operator.name, names, options, len(_failed), facts
    choice = _chosen.get(key)
    if choice is None:
        choice = _look_for(operator, names, x, flat, options)
        if len(_chosen) >= MOST_CHOICES:
            _chosen.clear()
        _chosen[key] = choice
    if choice.module and not all(map(Tensor.data_ptr, there)) and any(t.numel() and not t.data_ptr() for t in there):
        return _plain('a tensor has no memory')  # as the weights of a sharded model that were not gathered
    return choice


def _look_for(
    operator: Operator, names: tuple[str, ...], x: Tensor, flat: Sequence[Tensor | None], options: Any
) -> Choice:
    if reason := _does_not_fit(x, flat):
        return _plain(reason)
    weights = operator.unflatten(flat)
    refused = []
    for name in names:
        module, reason = _look_at(operator, name, x, weights, options)
        if not reason:
            return Choice(name, module, tuple(refused))
        refused.append((name, reason))
    return Choice('reference', None, tuple(refused))


def _plain(reason: str) -> Choice:
    return Choice('reference', None, (('fast backends', reason),), worth_a_line=False)


def _look_at(operator: Operator, name: str, x: Tensor, weights: Any, options: Any) -> tuple[ModuleType | None, str]:
    """The backend's module, if there is one, and why it cannot run; empty if it can."""
    if name == 'triton' and (reason := gpu.unsupported(x)):
        return None, reason  # said without importing Triton
    anywhere = operator.name, name, x.device, x.dtype
    if reason := _failed.get(anywhere) or _failed.get((*anywhere, x.shape, options)):
        return None, reason
    module = None
    try:
        module = importlib.import_module(f'{operator.package}.{name}')
        return module, module.unsupported(x, weights, options)
    except Exception as error:  # a Triton of another version fails in many ways
        return None, give_up(operator, name, x, options, error, at_all_shapes=module is None)


def _needs_plain_operations(x: Tensor) -> str:
    """Who records operations must see PyTorch's own."""
    if torch._C._is_tracing():  # also when exporting to ONNX
        return 'tracing'
    if torch._C._are_functorch_transforms_active():
        return 'torch.func'
    if forward_ad._current_level >= 0:
        return 'forward-mode AD'
    if _python_dispatch._get_current_dispatch_mode() is not None:
        return 'a dispatch mode'
    if type(x) not in (Tensor, nn.Parameter):
        return f'x is a {type(x).__name__}'
    if x.device.type == 'meta':
        return 'x has no data'
    return ''


def _does_not_fit(x: Tensor, flat: Sequence[Tensor | None]) -> str:
    """What the reference refuses, in PyTorch's words, or computes without any loop of ours."""
    if x.dim() != 4:
        return f'x has {x.dim()} dimensions'
    if not x.numel():
        return 'x is empty'
    if not x.is_floating_point():
        return f'x is {x.dtype}'
    if any(t is not None and type(t) not in (Tensor, nn.Parameter) for t in flat):
        return 'a weight is a subclass of Tensor'
    elsewhere = next((t.device for t in flat if t is not None and t.device != x.device), None)
    return '' if elsewhere is None else f'x is on {x.device}, a weight on {elsewhere}'


def give_up(
    operator: Operator, backend: str, x: Tensor, options: Any, error: Exception, at_all_shapes: bool = False
) -> str:
    """Remember that a backend does not work for this shape, and say so; returns the reason."""
    reason = f'{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ""}'
    anywhere = operator.name, backend, x.device, x.dtype
    _failed[(*anywhere, x.shape, options)] = reason
    alike = {key[4] for key, why in _failed.items() if key[:4] == anywhere and len(key) > 4 and why == reason}
    if at_all_shapes or len(alike) >= FAILURES:
        _failed[anywhere] = reason
    log_once((operator.name, backend, reason), f'{operator.name}: {backend} cannot run here ({reason})')
    return reason


def attempt(
    operator: Operator, backend: str, x: Tensor, options: Any, run: Callable[[], Any], by_reference: Callable[[], Any]
) -> Any:
    """``run()``; if that fails ``by_reference()``, and the backend is given up for this shape."""
    try:
        return with_free_memory(run)
    except Exception as error:
        if out_of_memory(error):
            raise  # the reference needs more
        found = by_reference()  # raises the user's own mistake, in PyTorch's words
        give_up(operator, backend, x, options, error)
        return found


def with_free_memory(run: Callable[..., Any], *args: Any) -> Any:
    """``run(*args)``, and once more if memory did not suffice: what PyTorch holds in reserve may be in pieces."""
    try:
        return run(*args)
    except Exception as error:
        if not out_of_memory(error) or _capturing():
            raise
    # Not in the clause above, where the error would hold on to what the first try had allocated.
    torch.cuda.empty_cache()
    return run(*args)


def _capturing() -> bool:
    """Whether launches go into a CUDA graph, where no memory may be freed."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def out_of_memory(error: Exception) -> bool:
    """Whether the GPU's memory did not suffice; for a kernel's code, Triton has no error of its own."""
    return isinstance(error, OutOfMemoryError) or str(error).startswith('Triton Error [CUDA]: out of memory')


def log_once(key: tuple[Any, ...], line: str) -> None:
    if key not in _logged:
        _logged.add(key)
        print_log(line, logger='current')


def log_choice(operator: Operator, x: Tensor, choice: Choice) -> None:
    """One line for each operator, device, dtype and choice in each log; checks run before that of a training begins."""
    if not choice.worth_a_line:
        return
    log = MMLogger.get_current_instance().instance_name
    if log not in choice.logs:  # the line costs more than the look
        choice.logs.add(log)
        key = (log, operator.name, x.device.type, x.dtype, choice)
        log_once(key, f'{operator.name} on {x.device.type}, {str(x.dtype).removeprefix("torch.")}: {choice}')
