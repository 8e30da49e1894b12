"""Running a tool as a process that ends with this one, and holding a folder for one process at a time."""

import contextlib
import ctypes
import fcntl
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .errors import UserError


@contextlib.contextmanager
def only_one(folder: Path, what: str) -> Iterator[int]:
    """Hold the folder, which is made; yields the lock's file descriptor, for the processes started here to hold too.

    Args:
        folder: Of one ``what``, such as a demo, at a time.

    Raises:
        UserError: if another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / '.lock', 'w')  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UserError(f'{folder} cannot be written: {error.strerror}') from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'another {what} is running in {folder}; wait for it or stop it') from None
        yield lock.fileno()


def run_tool(command: Sequence[str], lock: int, on_line: Callable[[str], None]) -> str:
    """Run a tool to its end; returns why it failed in one line, empty if it did not.

    Args:
        command: A Python file and its arguments.
        lock: Held by the process as long as it lives.
        on_line: Told each line of the output.
    """
    tail: deque[str] = deque(maxlen=200)
    # A session of its own: Ctrl-C reaches this process alone, which then ends the tool.
    child = subprocess.Popen(
        [sys.executable, '-u', *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        pass_fds=[lock],
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    try:
        for line in child.stdout:
            tail.append(line.strip())
            on_line(line)
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    return _reason(code, [line for line in tail if line]) if code else ''


def _reason(code: int, lines: list[str]) -> str:
    """The tool's own message, or the last line of its output, which is the exception of a traceback."""
    said = next((line.removeprefix('error: ') for line in lines if line.startswith('error: ')), None)
    if said is None and code < 0:
        said = f'ended by {signal.Signals(-code).name}'
    if said is None:
        said = lines[-1] if lines else f'exit status {code}'
    return said if len(said) <= 300 else said[:300] + ' ...'


def _end_with_parent() -> None:
    """Let Linux end a child when this process is killed; elsewhere the lock keeps a second training away."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
