"""What a training step of an attention costs the host, against one of a squeeze-and-excitation block.

On a GPU a small map takes less time than to launch what computes it. Without one the launches of our kernels are left
out, and only they: maps and parameters in memory stand in for those on a GPU. The other block runs on the CPU then,
where its arithmetic on so small a map is next to nothing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from ..attention import EMA, SCSA
from ..ops import dispatch, gpu, launch
from ..runtime.errors import UserError
from .table import Column, Row
from .timing import interleaved

SHAPE = (2, 64, 8, 8)
STEPS = 20  # of which the host may be ahead of a GPU
WARM_UP = 3
NO_DEVICE = -1
TITLE = 'Cost of a training step for the host'
COLUMNS = (
    Column('module', lambda row: row['module'], 'module'),
    Column('step (us)', lambda row: f'{row["median_us"]:.0f}', 'median_us'),
    Column('quartiles', lambda row: f'{row["q25_us"]:.0f}-{row["q75_us"]:.0f}', 'q25_us'),
    Column('step / SE', lambda row: f'{row["ratio"]:.2f}', 'ratio'),
)
NOTE = f'A step: gradients set to None, then forward and backward of a {" x ".join(map(str, SHAPE))} map in float32.'
STUBBED = (
    'No GPU: SCSA and EMA run the host side of their Triton backend on maps in memory, up to the launcher of each '
    'compiled kernel, which is left out; SE runs on the CPU.'
)


class _AnyVariant(dict):
    """In place of the compiled kernels: there is one for everything, and it does nothing."""

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: object) -> tuple[Callable[..., None], int, tuple[int, ...]]:
        return lambda *args: None, 0, (4, 1, 0)


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """In this block the Triton backends take maps in memory, and what they compute has no values."""
    with (
        mock.patch.multiple(
            launch,
            _compiled=_AnyVariant(),
            _direct=lambda: True,
            _current_device=lambda: NO_DEVICE,
            _current_stream=lambda device: 0,
        ),
        mock.patch.object(gpu, 'unsupported', return_value=''),
        mock.patch.multiple(dispatch, FASTEST_FIRST={'cpu': ('triton',)}, _failed={}, _chosen={}),
    ):
        yield


def notes(device: torch.device) -> list[str]:
    return [NOTE] if device.type == 'cuda' else [NOTE, STUBBED]


def measure(device: torch.device, rounds: int, on_round: Callable[[], None]) -> list[Row]:
    """A row for each module; SE first.

    Raises:
        UserError: without timm, or where the Triton backend cannot be had.
    """
    try:
        from timm.layers import SEModule
    except ImportError as error:
        raise UserError(f'--host compares with timm: {error}') from error
    x = torch.randn(SHAPE, device=device, requires_grad=True)
    gradient = torch.randn_like(x)
    modules = {'SE (timm)': SEModule(SHAPE[1]), 'SCSA': SCSA(SHAPE[1]), 'EMA': EMA(SHAPE[1])}
    with contextlib.nullcontext() if device.type == 'cuda' else without_kernels():
        steps = {
            name: partial(_step, module.to(device), [x, *module.parameters()], x, gradient)
            for name, module in modules.items()
        }
        for name in ('SCSA', 'EMA'):
            steps[name]()
            if (found := modules[name].backend_for(x)) != 'triton':
                raise UserError(f'--host measures the Triton backend, and {name} takes {found}')
        spreads = interleaved(steps, rounds, WARM_UP, device, on_round, partial(_per_step, device))
    base = next(iter(spreads.values())).median
    return [
        {
            'module': name,
            'median_us': s.median * 1e6,
            'q25_us': s.q25 * 1e6,
            'q75_us': s.q75 * 1e6,
            'ratio': s.median / base,
        }
        for name, s in spreads.items()
    ]


def _step(module: nn.Module, leaves: Sequence[Tensor], x: Tensor, gradient: Tensor) -> None:
    for leaf in leaves:
        leaf.grad = None
    module(x).backward(gradient)


def _per_step(device: torch.device, step: Callable[[], None]) -> float:
    """Seconds of the host, which does not wait for a GPU."""
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    seconds = time.perf_counter() - start
    if device.type == 'cuda':
        torch.cuda.synchronize()
    return seconds / STEPS
