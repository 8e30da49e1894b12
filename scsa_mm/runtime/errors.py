"""A user's mistake ends a tool with one line and a non-zero exit, not with a traceback."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can mend; the message says what is wrong and the way out, in one line."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a :class:`UserError` as one line (by the first process of a machine) and exit with status 2."""
    try:
        yield
    except UserError as error:
        if os.environ.get('SLURM_LOCALID', os.environ.get('LOCAL_RANK', '0')) == '0':
            print(f'error: {error}', file=sys.stderr, flush=True)
        sys.exit(2)


def one_line(error: BaseException) -> str:
    """What an exception says, in one line; for a bare assert the condition that did not hold."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return ' '.join((text or f'{type(error).__name__}: {source_line(error)}').split())


def source_line(error: BaseException) -> str:
    """The line of code that raised it; empty if it was not raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].line or '') if frames else ''
