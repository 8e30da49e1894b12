"""Launch Triton kernels whose grids, integers and constants a plan has settled. Imports no Triton before it must.

Triton's own launch looks at every argument anew, which costs the host more than a small kernel costs the GPU. Here the
compiled kernel is remembered, and its launcher called with addresses.
"""

import functools
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import gpu

Pointer = Tensor | tuple[Tensor, int]

ALIGNMENT = 16  # bytes; Triton compiles one kernel for addresses that are multiples of it, another for others

_address = Tensor.data_ptr
_misaligned = (ALIGNMENT - 1).__and__

# Neither is in a PyTorch without CUDA, where Triton's interpreter is all that can run.
_current_device = getattr(torch._C, '_cuda_getDevice', None)
_current_stream = getattr(torch._C, '_cuda_getCurrentRawStream', None)


class Variant(NamedTuple):
    """What Triton compiles one kernel for, if all addresses are aligned."""

    kernel: Any
    dtypes: tuple[torch.dtype, ...]
    wide: tuple[bool, ...]  # of each integer, whether it needs 64 bits
    constants: tuple[tuple[str, Any], ...]


# By device and variant: launcher, function and metadata. Plans of many shapes share a variant.
_compiled: dict[tuple[int, Variant], tuple[Any, Any, Any]] = {}


class Launch:
    """One launch of a kernel: all that a shape settles; only the addresses are missing.

    The kernel takes pointers first, then integers (none of which Triton specialises on), then constants.

    Args:
        kernel: A function under ``triton.jit``.
        grid: Programs along up to three axes.
        dtypes: Of what each pointer points to.
        integers: The values that follow the pointers.
        constants: The kernel's constants by name, and Triton's options such as ``num_warps``.
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        dtypes: tuple[torch.dtype, ...],
        integers: tuple[int, ...],
        **constants: Any,
    ) -> None:
        self.kernel, self.grid, self.dtypes, self.integers, self.constants = kernel, grid, dtypes, integers, constants
        self._sizes = tuple(dtype.itemsize for dtype in dtypes)
        self._ready: dict[int, tuple[Any, ...]] = {}  # by device

    @functools.cached_property
    def variant(self) -> Variant:
        wide = tuple(not -(2**31) <= i < 2**31 for i in self.integers)
        return Variant(self.kernel, self.dtypes, wide, tuple(sorted(self.constants.items(), key=lambda item: item[0])))

    def __call__(self, *pointers: Pointer) -> None:
        """Launch on the current stream. A pointer is a tensor, or (tensor, how many elements to go on in memory)."""
        if not _direct() or _hooked():
            self._ordinary(pointers)
            return
        addresses = [
            p[0].data_ptr() + p[1] * size if type(p) is tuple else p.data_ptr()
            for p, size in zip(pointers, self._sizes, strict=True)
        ]
        if any(map(_misaligned, addresses)):
            self._ordinary(pointers)
            return
        device = _current_device()
        ready = self._ready.get(device) or self._prepare(device)
        if ready is None:
            _remember(device, self.variant, self._ordinary(pointers))
            return
        run, grid, function, metadata, rest = ready
        run(*grid, _current_stream(device), function, metadata, None, None, None, *addresses, *rest)

    def _ordinary(self, pointers: tuple[Pointer, ...]) -> Any:
        """Triton's launch; returns the compiled kernel."""
        tensors = [p[0].view(-1)[p[1] :] if type(p) is tuple else p for p in pointers]
        return self.kernel[self.grid](*tensors, *self.integers, **self.constants)

    def _prepare(self, device: int) -> tuple[Any, ...] | None:
        found = _compiled.get((device, self.variant))
        if found is None:
            return None
        run, function, metadata = found
        # The launcher wants something in the place of each constant, and does not look at it.
        constants = len(self.kernel.arg_names) - len(self.dtypes) - len(self.integers)
        grid = (*self.grid, 1, 1)[:3]
        self._ready[device] = ready = run, grid, function, metadata, (*self.integers, *[None] * constants)
        return ready


class Launches:
    """Launches one after the other, whose pointers go to tensors that are the same for all, or into them.

    What one launch asks anew each time is asked once for all of them.

    Args:
        steps: Each a launch and its pointers: the place of a tensor among those that a call gets, or (place, how many
            elements to go on in memory).
    """

    def __init__(self, *steps: tuple[Launch, Sequence[int | tuple[int, int]]]) -> None:
        self._steps = [(launch, [p if type(p) is tuple else (p, 0) for p in pointers]) for launch, pointers in steps]
        offsets = [
            [(place, further * size) for (place, further), size in zip(pointers, launch._sizes, strict=True)]
            for launch, pointers in self._steps
        ]
        # Addresses inside of tensors, each added up once for all launches, and put behind those of the tensors.
        count = 1 + max(place for pointers in offsets for place, _ in pointers)
        inside = dict.fromkeys(pointer for pointers in offsets for pointer in pointers if pointer[1])
        numbers = {pointer: count + i for i, pointer in enumerate(inside)}
        self._count, self._inside = count, list(inside)
        self._picks = [_picker([numbers.get(pointer, pointer[0]) for pointer in pointers]) for pointers in offsets]
        self._aligned = not any(offset % ALIGNMENT for _, offset in inside)
        self._ready: dict[int, list[tuple[Any, ...]]] = {}  # by device

    def __call__(self, *tensors: Tensor) -> None:
        """Launch on the current stream."""
        ready = None
        if self._aligned and _direct() and not _hooked():
            addresses = list(map(_address, tensors[: self._count]))
            if not any(map(_misaligned, addresses)):
                device = _current_device()
                ready = self._ready.get(device) or self._prepare(device)
        if ready is None:
            for launch, pointers in self._steps:
                launch(*[(tensors[place], further) if further else tensors[place] for place, further in pointers])
            return
        stream = _current_stream(device)
        addresses += [addresses[place] + offset for place, offset in self._inside]
        for run, grid, function, metadata, rest, pick in ready:
            run(*grid, stream, function, metadata, None, None, None, *pick(addresses), *rest)

    def _prepare(self, device: int) -> list[tuple[Any, ...]] | None:
        ready = []
        for (launch, _), pick in zip(self._steps, self._picks, strict=True):
            known = launch._ready.get(device) or launch._prepare(device)
            if known is None:
                return None
            ready.append((*known, pick))
        self._ready[device] = ready
        return ready


def _picker(places: list[int]) -> Callable[[list[int]], tuple[int, ...]]:
    """Picks these places of a list; ``itemgetter`` would give a single one bare."""
    return itemgetter(*places) if len(places) > 1 else lambda found: tuple([found[place] for place in places])


def variants(launches: Iterable[Launch]) -> set[Variant]:
    """What would be compiled for these launches."""
    return {launch.variant for launch in launches}


def compile_together(launches: Iterable[Launch]) -> None:
    """Compile side by side what is not compiled yet for the current device, so that a training waits for it once.

    Raises:
        Exception: whatever Triton raises if a kernel does not compile.
    """
    if not _direct():
        return
    device = _current_device()
    fresh = [launch for launch in launches if device not in launch._ready]
    missing = {launch.variant: launch for launch in fresh if (device, launch.variant) not in _compiled}
    if missing and _async_mode() is not None:
        for variant, kernel in zip(missing, _compile(missing.values(), device), strict=True):
            _remember(device, variant, kernel)
    for launch in fresh:
        launch._prepare(device)


def _compile(launches: Collection[Launch], device: int) -> list[Any]:
    """Their kernels. Only the first fifth of each compilation holds the interpreter's lock."""

    def load(kernel: Any) -> None:
        with torch.cuda.device(device):  # in each thread anew
            kernel.run  # noqa: B018  (compiles the launcher and loads the kernel)

    with ThreadPoolExecutor(min(len(launches), os.cpu_count() or 1)) as pool:
        with _async_mode()(pool, ignore_errors=True):  # raised here, they would leave Triton in this mode
            kernels = [
                launch.kernel.warmup(*launch.dtypes, *launch.integers, grid=launch.grid, **launch.constants)
                for launch in launches
            ]
        kernels = [k.result() if hasattr(k, 'result') else k for k in kernels]
        list(pool.map(load, [k for k in kernels if k is not None]))
    return kernels


def _remember(device: int, variant: Variant, kernel: Any) -> None:
    # None from Triton's hooks that do not let it compile; no function yet while another thread loads the kernel.
    if kernel is not None and kernel.run is not None and kernel.function is not None:
        _compiled[device, variant] = kernel.run, kernel.function, kernel.packed_metadata


@functools.cache
def _direct() -> bool:
    """Whether launchers can be called here: of the versions of Triton that were read for it, on a GPU."""
    return not gpu.interpreted() and _current_stream is not None and (3, 4) <= _version() <= (3, 9)


def _async_mode() -> Any:
    """Triton's way to compile in threads; None before 3.6, where an error would end it for good."""
    import triton

    return triton.AsyncCompileMode if _version() >= (3, 6) else None


def _version() -> tuple[int, ...]:
    import triton

    return tuple(int(part) for part in triton.__version__.split('.')[:2])


@functools.cache
def _hooks() -> Any:
    from triton import knobs

    return knobs.runtime


def _hooked() -> bool:
    """Whether a profiler wants to see the arguments of launches."""
    hooks = _hooks()
    enter, leave = hooks.launch_enter_hook, hooks.launch_exit_hook
    # Lists of hooks, which Triton 3.4 does not have yet.
    return bool(getattr(enter, 'calls', enter) or getattr(leave, 'calls', leave))
