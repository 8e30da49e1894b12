"""How the tools of this folder show their progress and where they write."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..runtime.errors import UserError


def make_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)  # a log is not folded


def progress_on(console: Console) -> Progress:
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def check_free(out: Path, names: Iterable[str]) -> None:
    """Raise UserError if one of these patterns is there already."""
    there = sorted(path.name for name in names for path in out.glob(name))
    if there:
        raise UserError(f'{out} holds {there[0]} of an earlier comparison; choose another --out')


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {path} cannot be made: {error.strerror}') from error


def said(machine: dict[str, str]) -> list[str]:
    return [f'on: {machine["device"]}; {machine["threads"]} thread(s); {machine["versions"]}.']


def tell(console: Console, notes: Sequence[str], written: str) -> None:
    for note in notes:
        console.print(note, style='dim', markup=False, highlight=False)
    console.print(f'written: {written}', markup=False, highlight=False)
