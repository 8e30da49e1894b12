"""Showing progress, running commands, and saying in one line what went wrong."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class SetupError(Exception):
    """What is wrong and the way out, in one line."""


class Session:
    """Runs commands: one updating line on a terminal, single lines elsewhere, and all of their output in the log."""

    def __init__(self, log: Path) -> None:
        self.log_path = log
        self.log = log.open('a', encoding='utf-8')
        self.live = sys.stdout.isatty()
        self.start = self.step_start = self.last = time.monotonic()
        self.text = ''
        self.locks: list[int] = []

    def line(self, text: str) -> None:
        print(('\r\x1b[K' if self.live else '') + text, flush=True)
        self.last = time.monotonic()
        self.write_log(f'--- {text}')

    def write_log(self, text: str) -> None:
        print(text, file=self.log, flush=True)

    def step(self, title: str) -> None:
        self.step_start, self.text = time.monotonic(), ''
        self.line(f'{title} ...')

    def done(self) -> None:
        self.line(f'      done in {clock(self.step_start)}, {clock(self.start)} since the start')

    def status(self, text: str = '', worth_a_line: bool = False) -> None:
        """Show where a long command is; without a terminal, say what is worth it and a sign of life twice a minute."""
        self.text = text or self.text
        shown = f'      {clock(self.step_start)}  {self.text}'
        if self.live:
            print('\r\x1b[K' + shown[: shutil.get_terminal_size().columns - 1], end='', flush=True)
        elif worth_a_line or time.monotonic() - self.last > 30:
            print(shown, flush=True)
            self.last = time.monotonic()

    @contextlib.contextmanager
    def locked(self, path: Path, what: str) -> Iterator[None]:
        """Hold a lock that no other set-up has, waiting for it. Children inherit it, so that one which outlives a
        killed set-up is waited for as well."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        waiting = False
        while not self._try_lock(fd):
            if not waiting:
                self.line(f'      waiting for another set-up, which is at work on {what}')
            waiting = True
            self.status(f'waiting for {what}')
            time.sleep(1)
        self.locks.append(fd)
        try:
            yield
        finally:
            self.locks.remove(fd)
            os.close(fd)

    @staticmethod
    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def run(
        self,
        command: list[str],
        env: dict[str, str] | None = None,
        watch: Callable[[str, Session], None] = lambda line, session: None,
        cwd: Path | None = None,
    ) -> tuple[int, list[str]]:
        """Run a command and return its exit status and its last lines."""
        self.write_log('$ ' + shlex.join(command))
        last: collections.deque[str] = collections.deque(maxlen=2000)
        with subprocess.Popen(
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=self.locks
        ) as process:
            try:
                for line in read_lines(process.stdout.fileno(), self.status):
                    watch(line, self)
                    if not is_noise(line):
                        last.append(line)
                        self.write_log(line)
            except BaseException:
                process.send_signal(signal.SIGINT)  # both pip and the build stop their own children then
                raise
        return process.returncode, list(last)


def clock(since: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - since), 60)
    return f'{minutes}:{seconds:02d}'


def read_lines(fd: int, tick: Callable[[], None]) -> Iterator[str]:
    """Lines as they come; ``tick`` is called every second without one."""
    rest = b''
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if not selector.select(1):
                tick()
                continue
            chunk = os.read(fd, 65536)
            *lines, rest = re.split(rb'[\r\n]+', rest + chunk) if chunk else (rest, b'')
            yield from (line.decode(errors='replace') for line in lines if line)
            if not chunk:
                return


def is_noise(line: str) -> bool:
    """Lines that some pip configurations repeat for every package, and progress that is shown otherwise."""
    return bool(re.match(r"\s*WARNING: Location '.*' is ignored|Progress \d+ of \d+", line))


def watch_pip(line: str, session: Session) -> None:
    if match := re.match(r'Progress (\d+) of (\d+)', line):
        now, total = (int(n) / 1e6 for n in match.groups())
        session.status(f'{session.text.split(":")[0]}: {now:.0f} of {total:.0f} MB')
    elif match := re.match(r'\s*(?:Downloading|Using cached) (\S+) \(([\d.]+) ([kMG]B)', line):
        name = match[1].rsplit('/')[-1].split('-')[0]
        big = match[3] == 'GB' or (match[3] == 'MB' and float(match[2]) > 50)
        session.status(f'downloading {name}: {match[2]} {match[3]}', worth_a_line=big)
    elif line.startswith('Installing collected packages'):
        session.status(f'installing packages: {line.count(",") + 1}', worth_a_line=True)


def watch_ninja(line: str, session: Session) -> None:
    if match := re.match(r'\[(\d+)/(\d+)\]', line):
        done, total = int(match[1]), int(match[2])
        session.status(f'compiled {done} of {total} files', worth_a_line=done % 10 == 0 or done == total)


def failure(lines: list[str]) -> str:
    """The one line out of a command's output that says why it failed."""
    text = '\n'.join(lines)
    if 'No space left on device' in text:
        return 'the disk is full'
    if re.search(r'fatal signal Killed|Killed signal terminated', text):
        return 'the compiler was killed, probably for lack of memory: try MAX_JOBS=1'
    if re.search(r'NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Network is unreachable', text):
        return 'no network: pip cannot reach its package index'
    pinned = re.search(r'The user requested \(constraint\) (\S+)|No matching distribution found for (\S+)', text)
    if pinned:
        return f'it finds no {pinned[1] or pinned[2]}; is the network there, and has the package index that version?'
    errors = [line.strip() for line in lines if re.search(r'(^|\s)(fatal )?error:|nvcc fatal', line, re.IGNORECASE)]
    # The first complaint of a compiler is the cause; the last line of pip is its conclusion.
    compiler = [line for line in errors if not line.lower().startswith('error:')]
    return (compiler[:1] or errors[-1:] or lines[-1:] or ['no output'])[0]
