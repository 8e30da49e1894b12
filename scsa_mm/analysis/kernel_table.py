"""What every Triton kernel of an operator takes on a GPU that need not be here: registers, memory, programs."""

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import torch
from torch import Tensor

from .contestants import Operator
from .offline import Compiled, Launch, compile_launch, launches_of
from .shapes import DTYPES, Case
from .table import Column, Row

REGISTERS = 2**16  # of a multiprocessor, on every GPU since 2012
THREADS = 2048  # at most, on a multiprocessor; 1536 on some that are not in data centres
PROGRAMS = 32
PACKAGES = {'SCSA': 'scsa_mm.ops.scsa', 'EMA': 'scsa_mm.ops.ema'}
COLUMNS = (
    Column('kernel', lambda row: row['kernel'], 'kernel'),
    Column('in', lambda row: row['pass'], 'pass'),
    Column('programs', lambda row: f'{row["programs"]:,}', 'programs'),
    Column('warps', lambda row: str(row['warps']), 'warps'),
    Column('registers', lambda row: str(row['registers']), 'registers'),
    Column('side by side', lambda row: str(row['side_by_side']), 'side_by_side'),
    Column('spilled', lambda row: str(row['spilled_bytes']), 'spilled_bytes'),
    Column('shared', lambda row: f'{row["shared_bytes"]:,}', 'shared_bytes'),
    Column('variant', lambda row: str(row['variant']), 'variant'),
    Column('compiled in s', lambda row: f'{row["seconds"]:.1f}', 'seconds'),
)
NOTES = (
    'registers and spilled bytes are of one thread, shared bytes of one program; side by side: programs whose '
    'registers and threads fit on one multiprocessor together.',
    'launches with the same variant share one compiled kernel; it is compiled where seconds stand, on one core.',
)


def launches_on(operator: Operator, case: Case) -> Iterator[tuple[str, Launch]]:
    """The launches of one training step, each with its pass."""
    backend: ModuleType = importlib.import_module(f'{PACKAGES[operator.name]}.triton')
    dtype = DTYPES[case.dtype]
    weights, options = operator.build(case.shape[1], 'triton').to(dtype)._arguments()
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    x = torch.empty(case.shape, dtype=dtype, memory_format=layout)
    kept: list[tuple[Tensor, ...]] = []
    passes: dict[str, Callable[[], object]] = {
        'forward': lambda: kept.append(backend.forward(x, weights, options)[1]),
        'backward': lambda: backend.backward(torch.empty_like(x), x, weights, options, kept[0]),
    }
    for name, run in passes.items():
        for launch in launches_of(run):
            yield name, launch


def rows_of(launches: Sequence[tuple[str, Launch]], capability: int, about: Row, variants: dict[str, int]) -> list[Row]:
    """One row a launch.

    Args:
        launches: Each with its pass.
        capability: 90 is Hopper.
        about: What all of these rows say first.
        variants: Numbers of those seen before, by key; new ones are added.
    """
    rows = []
    for name, launch in launches:
        compiled = compile_launch(launch, capability)
        is_new = compiled.key not in variants
        number = variants.setdefault(compiled.key, len(variants) + 1)
        rows.append({**about, **_row(name, launch, compiled, number), 'seconds': compiled.seconds if is_new else None})
    return rows


def _row(name: str, launch: Launch, compiled: Compiled, number: int) -> Row:
    return {
        'pass': name,
        'kernel': compiled.name,
        'programs': math.prod(launch.grid),
        'warps': compiled.warps,
        'registers': compiled.registers,
        'side_by_side': side_by_side(compiled.registers, compiled.warps),
        'spilled_bytes': compiled.spilled,
        'shared_bytes': compiled.shared,
        'variant': number,
    }


def side_by_side(registers: int, warps: int) -> int:
    """How many programs a multiprocessor has registers and threads for."""
    threads = 32 * warps
    given = -(-max(registers, 1) // 8) * 8  # registers come in eights a thread
    return min(REGISTERS // (given * threads), THREADS // threads, PROGRAMS)
