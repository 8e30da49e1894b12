"""Outside implementations that take part in a comparison: ``--peer path/to/file.py:Class --peer-kwargs key=value``."""

import argparse
import importlib.util
import inspect
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ..runtime.errors import UserError, one_line
from ..runtime.plugin_options import parse_attention


@dataclass(frozen=True)
class Peer:
    """An implementation in a file of the user's.

    Args:
        operator: What it is compared with: the name before ``=``, else that of its class.
        label: How tables call it.
        cls: Takes the number of channels first.
        kwargs: The rest of its arguments.
    """

    operator: str
    label: str
    cls: type[nn.Module]
    kwargs: dict = field(default_factory=dict)

    def build(self, in_channels: int) -> nn.Module:
        return self.cls(in_channels, **self.kwargs)

    def check(self, in_channels: int) -> None:
        """Raise UserError if it cannot be built for so many channels."""
        try:
            self.build(in_channels)
        except Exception as error:  # it is a program of the user's: anything can go wrong in it
            raise UserError(f'--peer {self.label} with {in_channels} channels: {one_line(error)}') from error


class _Kwargs(argparse.Action):
    """Belongs to the ``--peer`` before it."""

    def __call__(self, parser, namespace, values, option_string=None):
        if not namespace.peer:
            parser.error('--peer-kwargs belongs to the --peer before it')
        namespace.peer[-1][1].extend(values)


class _Path(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        namespace.peer = [*namespace.peer, (values, [])]


def add_peer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--peer',
        action=_Path,
        default=[],
        metavar='[NAME=]FILE.py:CLASS',
        help='an outside implementation of NAME (default: the name of the class); repeatable',
    )
    parser.add_argument(
        '--peer-kwargs',
        action=_Kwargs,
        nargs='+',
        metavar='KEY=VALUE',
        help='arguments of the --peer before it, beside the number of channels, which comes first',
    )


def load_peers(peers: Sequence[tuple[str, list[str]]]) -> list[Peer]:
    """The peers of the command line, in order.

    Raises:
        UserError: if a file or class does not exist or import, or an argument is not ``key=value``.
    """
    loaded = [_load(text, kwargs, i) for i, (text, kwargs) in enumerate(peers)]
    labels = [peer.label for peer in loaded]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f'--peer: {label} is named twice')
    return loaded


def _load(text: str, kwargs: Sequence[str], number: int) -> Peer:
    operator, equals, rest = text.partition('=')
    if not equals or not operator.isidentifier():
        operator, rest = '', text
    file, colon, name = rest.rpartition(':')
    if not colon or not file or not name.isidentifier():
        raise UserError(f'--peer {text}: an implementation is written as FILE.py:CLASS or NAME=FILE.py:CLASS')
    path = Path(file)
    if not path.is_file():
        raise UserError(f'--peer {text}: {path} does not exist')
    cls = getattr(_import(path, number, text), name, None)
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        raise UserError(f'--peer {text}: {path} has no class {name} that is a torch.nn.Module')
    values = _parse(kwargs)
    options = ', '.join(f'{key}={value!r}' for key, value in values.items())
    return Peer(operator or name, f'{path.name}:{name}' + (f'({options})' if options else ''), cls, values)


def _import(path: Path, number: int, text: str) -> object:
    spec = importlib.util.spec_from_file_location(f'scsa_mm_peer_{number}_{path.stem}', path)
    if spec is None:
        raise UserError(f'--peer {text}: {path} is not a Python file')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and torch.compile look there
    sys.path.insert(0, str(path.resolve().parent))  # for what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is a program of the user's: anything can go wrong in it
        raise UserError(f'--peer {text}: {one_line(error)}') from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _parse(kwargs: Sequence[str]) -> dict:
    try:
        parts = [part for text in kwargs for part in shlex.split(text)]
        return parse_attention(f'peer:{",".join(parts)}')[1] if parts else {}
    except (UserError, ValueError):
        raise UserError(f'--peer-kwargs {" ".join(kwargs)}: arguments are key=value key=value') from None
