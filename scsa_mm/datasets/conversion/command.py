"""What the four command lines share: arguments, the report, and ends without a traceback."""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from ...runtime.errors import UserError, one_line_errors
from .core import Result


def parser(description: str, root: str) -> argparse.ArgumentParser:
    """A parser with the data root and ``--overwrite``."""
    made = argparse.ArgumentParser(description=description, allow_abbrev=False)
    made.add_argument('root', type=Path, metavar='DIR', help=root)
    made.add_argument('--overwrite', action='store_true', help='replace json files that are there')
    return made


def class_list(text: str) -> tuple[str, ...]:
    """``--classes``: names with commas between them, as names may have blanks."""
    return tuple(name.strip() for name in text.split(',') if name.strip())


def run(work: Callable[[], dict[str, Result]]) -> None:
    """Convert, print the report of each split, and end with one line if that fails."""
    # Ended by a signal as by Ctrl-C: what was written so far is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with one_line_errors():
        try:
            results = work()
        except KeyboardInterrupt:
            raise UserError('stopped; nothing was left behind') from None
        except OSError as error:
            raise UserError(f'{error.filename or "the json"} cannot be read or written: {error.strerror}') from error
    console = Console()
    for split, result in results.items():
        if result.findings.counts:
            console.print(result.findings.table(f'{split}: what was met'))
    for result in results.values():
        print(f'{result.path}: {result.images:,} images, {result.boxes:,} boxes')
