"""Compile Triton kernels for GPUs that are not here.

A backend is run on CPU tensors with the launches caught: each is specialised as Triton would do it, and compiled by
Triton and ptxas for the GPU asked for. Nothing runs, so the tensors may be large and without values.
"""

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from ..ops import launch as launching


class Launch(NamedTuple):
    kernel: JITFunction
    grid: tuple[int, ...]
    args: tuple
    kwargs: dict


class Compiled(NamedTuple):
    """A kernel with what one thread or program of it takes; ``spilled`` and ``shared`` in bytes.

    ``key`` is the same for launches that share a compiled kernel; the second of them takes no ``seconds``.
    """

    name: str
    key: str
    warps: int
    registers: int
    spilled: int
    shared: int
    ptx: str
    seconds: float


@contextmanager
def caught_launches() -> Iterator[list[Launch]]:
    """Launches made inside are listed instead of run."""
    launches: list[Launch] = []

    def run(self, *args, grid, warmup, **kwargs):
        if not warmup:
            launches.append(Launch(self, tuple(grid), args, kwargs))

    # Our own launcher would ask for a GPU; without it all goes through Triton's.
    with mock.patch.object(launching, '_direct', return_value=False), mock.patch.object(JITFunction, 'run', run):
        yield launches


def launches_of(function: Callable[[], object]) -> list[Launch]:
    with caught_launches() as launches:
        function()
    return launches


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Kernels compiled inside are compiled anew, and forgotten."""
    with tempfile.TemporaryDirectory() as folder, triton.knobs.cache.scope():
        triton.knobs.cache.dir = folder
        yield


def compile_launch(launch: Launch, capability: int) -> Compiled:
    """The kernel of ``launch`` for compute capability ``capability`` (90: Hopper); raises if it does not compile."""
    target = GPUTarget('cuda', capability, 32)
    backend = make_backend(target)
    kernel = launch.kernel
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(*launch.args, **launch.kwargs, debug=False)
    options, signature, constants, attributes = kernel._pack_args(
        backend, {**launch.kwargs, 'debug': False}, bound, specialization, options
    )
    source = ASTSource(kernel, signature, constants, attributes)
    start = time.perf_counter()
    compiled = triton.compile(source, target=target, options=options.__dict__)
    seconds = time.perf_counter() - start
    registers, spilled = _resources(compiled)
    return Compiled(
        kernel.__name__,
        compiled.hash,
        compiled.metadata.num_warps,
        registers,
        spilled,
        compiled.metadata.shared,
        compiled.asm['ptx'],
        seconds,
    )


def _resources(compiled) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    path = Path(compiled.metadata_group[f'{compiled.metadata.name}.cubin'])
    text = subprocess.run([tool, '--dump-resource-usage', path], capture_output=True, text=True, check=True).stdout
    found = re.search(r'REG:(\d+) STACK:(\d+).*? LOCAL:(\d+)', text)
    return int(found[1]), int(found[2]) + int(found[3])
