"""mmcv with its ops: built once per (Python, torch, CUDA or not, mmcv) and kept in the user's cache directory.

PyPI has no wheel of mmcv, and its sdist installs without ops where torch is not in sight. A build that is killed
goes on from the object files that it had finished.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from environment.console import Session, SetupError, failure, watch_ninja
from environment.machine import GIB, Target, check_compiler, check_disk, max_jobs

# Setting CFLAGS replaces the default flags, -O2 too. Without debug information the wheel has a twentieth of the size.
FLAGS = ('-O2', '-g0', '-DNDEBUG', '-fwrapv', '-w')
DISK_BUILD = GIB  # 0.5 GB for CPU ops: the precompiled header and the objects


class Job(NamedTuple):
    """One build: ``env`` is the environment of its commands, and ``pip(what, *arguments)`` runs pip."""

    version: str
    key: str
    target: Target
    python: str
    site: Path
    include: Path
    env: dict[str, str]
    pip: Callable[..., None]


def cache_root() -> Path:
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base).expanduser().absolute() / 'scsa_mm'


def wheel_key(python: tuple[int, int], torch: str, tag: str, mmcv: str) -> str:
    return f'cp{python[0]}{python[1]}-{platform.machine()}-torch{torch}-{tag}-mmcv{mmcv}'


def is_sound(wheel: Path) -> bool:
    """Whether the archive is whole and holds the compiled ops."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            has_ops = any(name.startswith('mmcv/_ext') and name.endswith('.so') for name in archive.namelist())
            return has_ops and archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def cached_wheel(key: str) -> Path | None:
    for wheel in (cache_root() / 'wheels' / key).glob('mmcv-*.whl'):
        if is_sound(wheel):
            return wheel
        wheel.unlink()
    return None


def obtain(job: Job, session: Session) -> Path:
    """The wheel from the cache, or a new one; of two set-ups that want the same one, the second waits."""
    with session.locked(cache_root() / 'locks' / job.key, f'the mmcv wheel {job.key}'):
        wheel = cached_wheel(job.key)
        if wheel:
            session.status(f'found in the cache: {wheel}', worth_a_line=True)
            return wheel
        return _build(job, session)


def _build(job: Job, session: Session) -> Path:
    if job.target.tag != 'cpu' and not job.target.cuda_home:
        raise SetupError('the mmcv in the cache is unusable, and no CUDA toolkit is here to build another')
    folder = cache_root() / 'build' / job.key
    compiler = check_compiler(job.include)
    check_disk([('building mmcv', folder, DISK_BUILD)])
    env = {**job.env, **_variables(job), 'CXX': compiler}
    source = _fetch_source(job, folder, env, session)
    header = _precompile(job, compiler, folder, session)
    env['CFLAGS'] = shlex.join([*FLAGS, *(['-include', str(header)] if header else [])])
    # Only the object files are worth keeping: ninja knows which of them are whole. distutils would take a file
    # that was half copied or half linked when the build was killed for a new one.
    for left_over in (*source.glob('build/lib*'), *source.glob('build/bdist*'), *source.glob('dist')):
        shutil.rmtree(left_over)
    session.status(f'compiling mmcv {job.version} ({job.target.tag}), {env["MAX_JOBS"]} at a time', worth_a_line=True)
    command = [job.python, 'setup.py', 'bdist_wheel', '-d', 'dist']
    code, lines = session.run(command, env, watch_ninja, cwd=source)
    wheels = list((source / 'dist').glob('mmcv-*.whl'))
    if code or not wheels:
        raise SetupError(f'mmcv does not compile: {failure(lines)}; full log: {session.log_path}')
    if not is_sound(wheels[0]):
        raise SetupError(f'the wheel of mmcv came out without its ops; full log: {session.log_path}')
    kept = cache_root() / 'wheels' / job.key / wheels[0].name
    kept.parent.mkdir(parents=True, exist_ok=True)
    os.replace(wheels[0], kept)
    shutil.rmtree(folder)
    return kept


def _variables(job: Job) -> dict[str, str]:
    """The switches of mmcv's setup.py and of torch's extension builder."""
    common = {'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(max_jobs())}
    if not job.target.cuda_home:
        # Hidden, as mmcv's setup.py goes for CUDA as soon as torch sees a GPU.
        return {**common, 'FORCE_CUDA': '0', 'CUDA_VISIBLE_DEVICES': ''}
    cuda = {'FORCE_CUDA': '1', 'CUDA_HOME': str(job.target.cuda_home), 'TORCH_CUDA_ARCH_LIST': job.target.arch}
    if not (job.target.cuda_home / 'include' / 'cusparse.h').is_file():
        # A toolkit without the library headers: those that torch's nvidia wheels bring serve as well.
        found = [str(header.parent) for header in job.site.glob('nvidia/*/include/cusparse.h')]
        cuda['CPATH'] = os.pathsep.join(filter(None, [*found, job.env.get('CPATH')]))
    return {**common, **cuda}


def _fetch_source(job: Job, folder: Path, env: dict[str, str], session: Session) -> Path:
    source = folder / f'mmcv-{job.version}'
    if source.is_dir():
        session.status('going on with a build that was interrupted', worth_a_line=True)
        return source
    sdists, unpacked = folder / 'sdist', folder / 'unpacked'
    for left_over in (sdists, unpacked):
        shutil.rmtree(left_over, ignore_errors=True)
    flags = ['--no-deps', '--no-build-isolation', '--no-binary', 'mmcv', '-d', str(sdists)]
    job.pip('download mmcv', 'download', *flags, f'mmcv=={job.version}', env=env)
    with tarfile.open(next(sdists.glob('mmcv-*.tar.gz'))) as archive:
        archive.extractall(unpacked, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
    os.replace(unpacked / source.name, source)
    return source


def _precompile(job: Job, compiler: str, folder: Path, session: Session) -> Path | None:
    """torch's headers precompiled: seconds and 0.4 GB instead of 5 s for each of mmcv's 77 sources.

    Only ``torch/types.h``: with ``torch/extension.h`` the file is so large that reading it eats the gain. GCC alone
    takes such a file through ``-include``, and just ignores it where flags or macros do not fit.
    """
    version = subprocess.run([*shlex.split(compiler), '--version'], capture_output=True, text=True).stdout
    if 'Free Software Foundation' not in version:
        return None
    header, torch = folder / 'pch' / 'p.hpp', job.site / 'torch'
    result, stamp, draft = (header.with_name(name) for name in ('p.hpp.gch', 'stamp', 'draft'))
    command = [*shlex.split(compiler), *FLAGS, '-std=c++17', '-fPIC', '-DTORCH_API_INCLUDE_EXTENSION_H']
    command += ['-DTORCH_EXTENSION_NAME=_ext', f'-I{torch}/include', f'-I{torch}/include/torch/csrc/api/include']
    command += [f'-I{job.include}', '-x', 'c++-header', str(header), '-o', str(draft)]
    # GCC does not look whether the headers inside are still the same; a torch installed anew has a new time.
    stand = hashlib.sha256(repr((command, version, (torch / 'version.py').stat().st_mtime_ns)).encode()).hexdigest()
    if result.is_file() and stamp.is_file() and stamp.read_text() == stand:
        return header
    session.status("precompiling torch's headers", worth_a_line=True)
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text('#include <torch/types.h>\n')
    stamp.unlink(missing_ok=True)
    code, _ = session.run(command, job.env)
    if code:
        session.line("      torch's headers cannot be precompiled (see the log): this takes minutes longer")
        return None
    os.replace(draft, result)
    stamp.write_text(stand)
    return header
