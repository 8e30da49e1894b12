"""Who is timed against whom: our backends of an operator, what others wrote, and the modules of timm."""

import importlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..ops.compiled import IN_GRAPHS
from ..ops.dispatch import BACKENDS
from ..runtime.errors import UserError, one_line
from .candidates import parse_candidates
from .peers import Peer

TIMM = {
    'SE (timm)': ('timm.layers', 'SEModule'),
    'CBAM (timm)': ('timm.layers.cbam', 'CbamModule'),
    'CoordAttn (timm)': ('timm.layers.coord_attn', 'CoordAttn'),
}
SE = 'SE (timm)'
COPY = 'copy'
# Maps read and written, as the algebra of each operator needs them: forward, and forward with backward.
MAPS_MOVED = {'SCSA': dict(forward=4, training=8), 'EMA': dict(forward=4, training=10)}
OTHER_MAPS_MOVED = dict(forward=2, training=4)


@dataclass(frozen=True)
class Operator:
    """An attention with several backends.

    Args:
        label: As the user wrote it, with its options.
        cfg: Its config without ``in_channels`` and ``backend``.
    """

    label: str
    cfg: dict

    @property
    def name(self) -> str:
        return self.label.partition(':')[0]

    def build(self, in_channels: int, backend: str) -> nn.Module:
        return MODELS.build(dict(self.cfg, in_channels=in_channels, backend=backend))

    def maps_moved(self, job: str) -> int:
        """The least, in maps of the input's size."""
        return MAPS_MOVED.get(self.name, OTHER_MAPS_MOVED)[job]


@dataclass(frozen=True)
class Contestant:
    """One line of a table.

    Args:
        name: Of the line.
        kind: 'ours', 'compiled', 'peer', 'compiled peer', 'other' (another attention) or 'copy'.
        build: Makes the module for a number of channels.
        backend: Of ours: the one that must be used.
        chosen: Of ours: the one that is used by default.
    """

    name: str
    kind: str
    build: Callable[[int], nn.Module]
    backend: str = ''
    chosen: bool = False

    @property
    def compiled(self) -> bool:
        return self.kind.startswith('compiled')

    @property
    def same_arithmetic(self) -> bool:
        """Whether it must compute what the reference does."""
        return self.kind not in ('other', 'copy')


def parse_operators(texts: Sequence[str]) -> list[Operator]:
    """Operators with several backends, as ``SCSA`` or ``EMA:groups=8``.

    Raises:
        UserError: for other attention, an unknown option, or a backend, since all of them are compared.
    """
    operators = []
    for candidate in parse_candidates(texts):
        cls = candidate.cfg and MODELS.get(candidate.cfg['type'])
        if not hasattr(cls, 'backend_for'):
            raise UserError(f'--attention: {candidate.label} has one implementation only; SCSA and EMA have several')
        if 'backend' in candidate.cfg:
            raise UserError(f'--attention {candidate.label}: all backends are compared; leave backend out')
        operators.append(Operator(candidate.label, candidate.cfg))
    return operators


def check(operator: Operator, peers: Sequence[Peer], channels: Sequence[int]) -> None:
    """Raise UserError if the operator or a peer of it cannot be built for one of these numbers of channels."""
    for c in dict.fromkeys(channels):
        try:
            operator.build(c, 'reference')
        except (TypeError, ValueError) as error:
            raise UserError(f'--attention {operator.label} with {c} channels: {one_line(error)}') from error
        for peer in peers:
            peer.check(c)


def ours(operator: Operator, x: Tensor, notes: dict[str, str]) -> list[Contestant]:
    """Our backends that can run on ``x``; why others cannot goes into ``notes``."""
    channels = x.shape[1]
    chosen = backend_of(operator.build(channels, 'auto').to(x.device, x.dtype), x)
    found = []
    for backend in BACKENDS:
        if backend == 'auto':
            continue
        choice = operator.build(channels, backend).to(x.device, x.dtype).backend_for(x)
        if choice.split(' ')[0] == backend:
            is_chosen = backend == chosen

            def build(c: int, backend: str = backend) -> nn.Module:
                return operator.build(c, backend)

            found.append(Contestant(backend, 'ours', build, backend, is_chosen))
        else:
            notes[f'{operator.label}, {backend}'] = choice.partition(': ')[2].partition('; ')[0].removesuffix(')')
    return found


def backend_of(module: nn.Module, x: Tensor) -> str:
    return module.backend_for(x).split(' ')[0]


def of_compiler(operator: Operator, ours: Sequence[Contestant]) -> list[Contestant]:
    """torch.compile of the reference, and of what is used by default if that has a place in compiled graphs."""
    chosen = [c.backend for c in ours if c.chosen and c.backend in IN_GRAPHS]

    def build(c: int, backend: str) -> nn.Module:
        return operator.build(c, backend)

    return [
        Contestant(f'torch.compile({backend})', 'compiled', partial(build, backend=backend), backend)
        for backend in ('reference', *chosen)
    ]


def of_peer(peer: Peer) -> Contestant:
    return Contestant(peer.label, 'peer', peer.build)


def compiled_peer(peer: Peer) -> Contestant:
    return Contestant(f'torch.compile({peer.label})', 'compiled peer', peer.build)


def of_timm(notes: dict[str, str]) -> list[Contestant]:
    """The modules of timm; none, with a note, without timm."""
    found = []
    for name, (module, cls) in TIMM.items():
        try:
            found.append(Contestant(name, 'other', getattr(importlib.import_module(module), cls)))
        except (ImportError, AttributeError) as error:
            notes[name] = one_line(error)
    return found


def copy() -> Contestant:
    """The physical limit: what reads a map and writes one."""
    return Contestant(COPY, 'copy', lambda c: nn.Identity())


def cannot_compile(device: torch.device) -> str:
    """Why torch.compile cannot work here; empty if it may."""
    if device.type == 'cpu' and not any(map(shutil.which, (os.environ.get('CXX', ''), 'g++', 'c++', 'clang++'))):
        return 'no C++ compiler'
    return ''
