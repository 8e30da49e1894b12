"""What this machine offers: compiler, headers, disk, GPU and CUDA toolkit."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from environment.console import SetupError

GIB = 2**30
USUAL_TOOLKIT = '/usr/local/cuda'


class Target(NamedTuple):
    """What mmcv's ops are built for; ``note`` says in one line what keeps them from the GPU that is there."""

    tag: str = 'cpu'
    arch: str = ''
    cuda_home: Path | None = None
    note: str = ''


def find_compiler() -> str | None:
    candidates = [os.environ['CXX']] if os.environ.get('CXX') else ['c++', 'g++', 'clang++']
    return next((name for name in candidates if shutil.which(shlex.split(name)[0])), None)


def check_compiler(include: Path) -> str:
    """The C++ compiler, which is useless without the headers of Python in ``include``."""
    compiler = find_compiler()
    if not compiler:
        raise SetupError(
            'no C++ compiler found (looked for $CXX, c++, g++, clang++), and mmcv has to be compiled: '
            'install one, e.g. `apt install g++` or `dnf install gcc-c++`, and run it again'
        )
    if not (include / 'Python.h').is_file():
        raise SetupError(
            f'the headers of Python are missing ({include / "Python.h"}), and mmcv has to be compiled: '
            'install them, e.g. `apt install python3-dev` or `dnf install python3-devel`, and run it again'
        )
    return compiler


def check_disk(needs: list[tuple[str, Path, int]]) -> None:
    """Compare the free space of each filesystem with the sum of what goes there: (what, folder, bytes)."""
    per_disk = collections.defaultdict(list)
    for what, path, size in needs:
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        per_disk[there.stat().st_dev].append((what, there, size))
    for entries in per_disk.values():
        free, need = shutil.disk_usage(entries[0][1]).free, sum(size for _, _, size in entries)
        if free < need:
            parts = ', '.join(f'{what} {size / GIB:.1f} GB' for what, _, size in entries)
            raise SetupError(
                f'too little disk space: {need / GIB:.1f} GB needed at {entries[0][1]} ({parts}), '
                f'{free / GIB:.1f} GB free; make room, or choose other places with VENV= and XDG_CACHE_HOME='
            )


def gpu_capabilities() -> list[str]:
    """Compute capabilities of the NVIDIA GPUs of this machine, e.g. ['9.0']; empty without one."""
    query = ['nvidia-smi', '--query-gpu=compute_cap', '--format=csv,noheader']
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60)
        return sorted(set(re.findall(r'^\s*(\d+\.\d)\s*$', answer.stdout, re.MULTILINE)), key=float)
    return []


def find_toolkit(cuda: str) -> tuple[Path | None, str]:
    """The CUDA toolkit with torch's major version, else what is missing."""
    nvcc = shutil.which('nvcc')
    homes = [os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH')]
    homes += [nvcc and os.path.dirname(os.path.dirname(os.path.realpath(nvcc))), USUAL_TOOLKIT]
    wanted, others = cuda.split('.')[0], []
    for home in dict.fromkeys(Path(home) for home in homes if home):
        # An nvcc on PATH can be a mere wrapper: its folder is a toolkit only if the headers are there.
        if not (home / 'bin' / 'nvcc').is_file() or not (home / 'include' / 'cuda_runtime.h').is_file():
            continue
        with contextlib.suppress(OSError):
            answer = subprocess.run([home / 'bin' / 'nvcc', '--version'], capture_output=True, text=True)
            release = re.search(r'release (\d+)\.\d+', answer.stdout)
            if release and release[1] == wanted:
                return home, ''
            others.append(f'{home} is {release[0] if release else "unusable"}')
    found = ', '.join(others) or f'no nvcc in CUDA_HOME, on PATH or in {USUAL_TOOLKIT}'
    return None, f'the CUDA toolkit {wanted}.x is missing ({found})'


def choose_target(torch_cuda: str | None, has_wheel: Callable[[str], bool]) -> Target:
    """CUDA ops if there is a GPU (or FORCE_CUDA=1) and the means to build them, else CPU ops and why."""
    force = os.environ.get('FORCE_CUDA', '')
    if force == '0':
        return Target()
    # Container images set TORCH_CUDA_ARCH_LIST to all there is; without FORCE_CUDA the GPU at hand is enough.
    named = os.environ.get('TORCH_CUDA_ARCH_LIST', '') if force == '1' else ''
    arch = re.findall(r'[^;\s]+', named) or gpu_capabilities()
    if not arch and force == '1':
        raise SetupError('FORCE_CUDA=1, but no GPU is here: set TORCH_CUDA_ARCH_LIST too, e.g. to 9.0')
    if not arch:
        return Target()
    home, missing = find_toolkit(torch_cuda) if torch_cuda else (None, 'this torch is a build without CUDA')
    kinds = '-'.join('sm' + re.sub(r'\W', '', kind).lower() for kind in arch)
    tag = f'cu{(torch_cuda or "").replace(".", "")}-{kinds}'
    if home or has_wheel(tag):
        return Target(tag, ';'.join(arch), home)
    if force == '1':
        raise SetupError(f'FORCE_CUDA=1, but {missing}')
    way_out = 'install it' if torch_cuda else 'install a torch with CUDA'
    return Target(note=f'mmcv gets CPU ops only: {missing}; {way_out} and run `make setup` again for the CUDA ops')


def max_jobs() -> int:
    """Compilers at a time: one per core, as far as there are 2 GB of free memory for each."""
    if os.environ.get('MAX_JOBS', '').isdigit():
        return max(1, int(os.environ['MAX_JOBS']))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    free = []
    with contextlib.suppress(OSError, TypeError, ValueError):
        free.append(int(re.search(r'MemAvailable:\s+(\d+) kB', Path('/proc/meminfo').read_text())[1]) * 1024)
        free.append(int(Path('/sys/fs/cgroup/memory.max').read_text()))  # 'max' is no limit, and no number
    return max(1, min(cores, min(free, default=2 * GIB) // (2 * GIB)))
