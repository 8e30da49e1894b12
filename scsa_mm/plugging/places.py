"""Where in a built model attention can stand: the input or output of one of its modules."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

# Modules whose children are the order of their work: a child more would be called, or change what they iterate over.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Place:
    """What passes through the attention.

    Args:
        target: Path of a module, as in ``model.named_modules()``; ``''`` is the model itself.
        when: ``'before'``: its first input; ``'after'``: its output.
        output: Index into an output that is a tuple or list of maps; None where it is one tensor.
    """

    target: str
    when: str
    output: int | None = None

    def __str__(self) -> str:
        entry = '' if self.output is None else f'output {self.output} of '
        return f'{self.when} {entry}{self.target or "the whole module"}'


def owner_of(model: nn.Module, place: Place) -> str:
    """Path of the module that holds the attention for a place: the nearest module above that is no container.

    Raises:
        ValueError: if only containers are above the target.
    """
    parts = place.target.split('.') if place.target else []
    for end in range(len(parts) - 1, -1, -1):
        path = '.'.join(parts[:end])
        if not isinstance(model.get_submodule(path), CONTAINERS):
            return path
    if not isinstance(model, CONTAINERS):
        return ''
    raise ValueError(
        f'{place}: every module above it is a container ({type(model).__name__}), which would call the attention as '
        'one more layer; put the attention into it as a layer, or give the module that holds it'
    )


def match(pattern: str, paths: Iterable[str]) -> list[str]:
    """Paths that a pattern names: ``*`` stands for any part of a name between two dots, ``**`` also for dots."""
    parts = re.split(r'(\*\*|\*)', pattern)
    regex = ''.join({'*': r'[^.]*', '**': '.*'}.get(part, re.escape(part)) for part in parts)
    return [path for path in paths if re.fullmatch(regex, path)]
