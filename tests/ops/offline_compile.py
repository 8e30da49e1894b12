"""Compile Triton kernels for GPUs that are not here.

A backend is run on CPU tensors with the launches caught: each is specialised as Triton would do it, and compiled by
Triton and ptxas for the GPU asked for. Nothing runs, so the tensors may be large and without values.
"""

import re
import subprocess
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


class Launch(NamedTuple):
    kernel: JITFunction
    grid: tuple[int, ...]
    args: tuple
    kwargs: dict


class Compiled(NamedTuple):
    """A kernel with what one thread or program of it takes; ``spilled`` and ``shared`` in bytes."""

    name: str
    registers: int
    spilled: int
    shared: int
    ptx: str


@contextmanager
def caught_launches() -> Iterator[list[Launch]]:
    """Launches made inside are listed instead of run."""
    launches: list[Launch] = []

    def run(self, *args, grid, warmup, **kwargs):
        launches.append(Launch(self, tuple(grid), args, kwargs))

    with mock.patch.object(JITFunction, 'run', run):
        yield launches


def launches_of(function: Callable[[], object]) -> list[Launch]:
    with caught_launches() as launches:
        function()
    return launches


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
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, attributes), target=target, options=options.__dict__
    )
    registers, spilled = _resources(compiled)
    return Compiled(kernel.__name__, registers, spilled, compiled.metadata.shared, compiled.asm['ptx'])


def _resources(compiled) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    path = Path(compiled.metadata_group[f'{compiled.metadata.name}.cubin'])
    text = subprocess.run([tool, '--dump-resource-usage', path], capture_output=True, text=True, check=True).stdout
    found = re.search(r'REG:(\d+) STACK:(\d+).*? LOCAL:(\d+)', text)
    return int(found[1]), int(found[2]) + int(found[3])
