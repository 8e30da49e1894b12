"""Compile the C++ files of this folder on the user's machine, once, and load them.

Why not torch.utils.cpp_extension: the files see plain pointers and no header of torch, so that they compile in seconds
instead of a minute, with nothing to install but a compiler, and one compiled file serves every version of torch.
"""

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
# No -ffast-math: infinities and NaNs must come out as PyTorch gives them. Three flags are what vector loops need of it.
FLAGS = [
    '-std=c++17',
    '-O3',
    '-march=native',
    '-fPIC',
    '-fopenmp',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-ffp-contract=fast',
]


class CompilationError(RuntimeError):
    """There is no compiler, or it did not succeed; the message is one line."""


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions; compiled at the first call on this machine, which takes some seconds.

    Raises:
        CompilationError: if that cannot be done. The reason is remembered, and nothing is tried again.
    """
    result = _load_once()
    if isinstance(result, str):
        raise CompilationError(result)
    return result


@functools.cache  # also of failures, which library() does not remember
def _load_once() -> ctypes.CDLL | str:
    found = shutil.which('g++') or shutil.which('c++') or shutil.which('clang++')
    compiler = shlex.split(os.environ.get('CXX') or '') or ([found] if found else [])  # CXX may be "ccache g++"
    if not compiler:
        return 'no C++ compiler found (g++, c++ or clang++; CXX names another)'
    try:
        return _load(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, 'stderr', None) or error).strip().splitlines()
        return f'{compiler[-1]} failed: {next((line for line in said if "error" in line), said[-1] if said else error)}'


def _load(compiler: list[str]) -> ctypes.CDLL:
    # First without an OpenMP runtime of its own: torch has loaded one, whose threads would otherwise wait for work by
    # turning in circles on the cores that ours need.
    path = _compiled(compiler, link=[])
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return ctypes.CDLL(str(_compiled(compiler, link=['-fopenmp'])))


def _compiled(compiler: list[str], link: list[str]) -> Path:
    """The shared library, from the cache if it is there."""
    sources = sorted(FOLDER.glob('*.cpp'))
    version = subprocess.run([*compiler, '--version'], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(repr((version, FLAGS, link, _processor())).encode())
    for file in (*sources, *sorted(FOLDER.glob('*.h'))):
        digest.update(file.read_bytes())
    target = _cache() / f'native-{digest.hexdigest()[:16]}.so'
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [Path(folder) / f'{source.stem}.o' for source in sources]
        jobs = [
            subprocess.Popen(
                [*compiler, *FLAGS, '-c', str(source), '-o', str(object_)], stderr=subprocess.PIPE, text=True
            )
            for source, object_ in zip(sources, objects, strict=True)
        ]
        said = [job.communicate()[1] for job in jobs]  # all have ended before their folder goes
        for job, stderr in zip(jobs, said, strict=True):
            if job.returncode:
                raise subprocess.CalledProcessError(job.returncode, job.args, stderr=stderr)
        made = Path(folder) / target.name
        subprocess.run(
            [*compiler, '-shared', *link, *map(str, objects), '-o', str(made)],
            capture_output=True,
            text=True,
            check=True,
        )
        os.replace(made, target)  # whole or not at all, whoever else compiles at the same time
    return target


def _processor() -> str:
    """What -march=native looks at: a home folder may be shared by machines that differ."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    return f'{platform.machine()} {platform.processor()} {flags}'


def _cache() -> Path:
    try:
        folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'scsa_mm'
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # the latter: there is no home
        pass
    # A folder of this process and user alone: a shared one could hold a library that someone else put there.
    folder = Path(tempfile.mkdtemp(prefix='scsa_mm-'))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
