"""Set up the virtual environment of this checkout: what ``make setup`` runs.

Standard library only, and safe to kill anywhere: a step is done when its marker holds the digest of what was asked
for and what it names is complete on disk; anything else is done again. The wheel of mmcv, minutes of compiling,
is kept in the user's cache directory for the next checkout.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from environment.console import Session, SetupError, clock, failure, watch_pip
from environment.machine import GIB, Target, check_compiler, check_disk, choose_target
from environment.mmcv_wheel import DISK_BUILD, Job, cache_root, cached_wheel, obtain, wheel_key

ROOT = Path(__file__).resolve().parents[1]
MIN_PYTHON = (3, 10)
DISK_VENV = 7 * GIB  # 5.3 GB in the end, 6.4 GB while torch's downloads lie beside what comes out of them

TOOLS = ('pip', 'setuptools', 'wheel', 'ninja', 'psutil')
TORCH = ('torch', 'torchvision')
# mmengine is not here on purpose: it asks for opencv-python, which does not import on a machine without libGL.
# It comes with mmcv, without dependencies; the second line has those.
PACKAGES = (
    *('mmdet', 'mmsegmentation', 'mmpretrain', 'timm', 'ftfy', 'regex'),
    *('addict', 'matplotlib', 'numpy', 'opencv-python-headless', 'packaging', 'PyYAML', 'rich', 'termcolor', 'yapf'),
    'defusedxml',
    *('pytest', 'pytest-xdist', 'ruff', 'pre-commit', 'onnx', 'onnxruntime', 'onnxscript'),
)

PROBE = """
import json, sys, sysconfig
print(json.dumps([sys.version_info[:2], sysconfig.get_path('purelib'), sysconfig.get_path('include')]))
"""


class Env(NamedTuple):
    """A virtual environment that works."""

    path: Path
    version: tuple[int, int]
    site: Path
    include: Path

    @property
    def python(self) -> str:
        return str(self.path / 'bin' / 'python')

    def marker(self, step: str) -> Path:
        return self.path / '.setup' / f'{step}.ok'


class Step(NamedTuple):
    """``asked`` is what the marker must say, ``needs`` the distributions that must be there, ``pip`` how they come."""

    name: str
    title: str
    asked: str
    needs: dict[str, str]
    pip: tuple[str, ...] = ()

    def is_done(self, env: Env, present: dict[str, str]) -> bool:
        marker = env.marker(self.name)
        same = marker.is_file() and marker.read_text() == self.asked
        return same and all(present.get(name) == version for name, version in self.needs.items())


# --- what is asked for, and what is there


def canonical(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def read_pins(version: tuple[int, int], path: Path = ROOT / 'constraints.txt') -> dict[str, str]:
    """The pins that hold for this Python version."""
    form = re.compile(r'([\w.-]+)==([^\s;]+)\s*(?:;\s*python_version\s*(>=|<)\s*"(\d+)\.(\d+)")?')
    pins = {}
    for line in filter(None, (line.split('#')[0].strip() for line in path.read_text().splitlines())):
        match = form.fullmatch(line)
        if not match:
            raise SetupError(f'constraints.txt: not a pin that tools/setup_env.py can read: {line}')
        name, pin, comparison, major, minor = match.groups()
        if not comparison or (comparison == '>=') == (version >= (int(major), int(minor))):
            pins[canonical(name)] = pin
    return pins


def dist_infos(site: Path) -> Iterator[tuple[Path, bool]]:
    """Every dist-info folder, and whether its installation came to the end: pip writes these two files last."""
    for folder in site.glob('*.dist-info'):
        yield folder, (folder / 'INSTALLER').is_file() and (folder / 'RECORD').is_file()


def installed(site: Path) -> dict[str, str]:
    """Name and version of the distributions that are completely installed."""
    found = {}
    for folder, complete in dist_infos(site):
        name, _, version = folder.name[: -len('.dist-info')].partition('-')
        if complete:
            found[canonical(name)] = version.split('+')[0]
    return found


def scrub(site: Path) -> None:
    """Remove what a killed pip left: pip would take a part for the whole, or stumble over it."""
    broken = [folder for folder, complete in dist_infos(site) if not complete]
    for folder in (*broken, *site.glob('~*')):
        shutil.rmtree(folder, ignore_errors=True)


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def torch_cuda(site: Path) -> str | None:
    """``torch.version.cuda``, read without the seconds that importing torch takes."""
    path = site / 'torch' / 'version.py'
    match = re.search(r"^cuda\b[^=]*= '([\d.]+)'", path.read_text(), re.MULTILINE) if path.is_file() else None
    return match[1] if match else None


def plan(pins: dict[str, str], python: tuple[int, int], target: Target) -> list[Step]:
    def pip_step(name: str, packages: tuple[str, ...], *flags: str) -> Step:
        needs = {canonical(package): pins[canonical(package)] for package in packages}
        names = [f'{package} {needs[canonical(package)]}' for package in packages]
        title = ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
        constraints = ('-c', str(ROOT / 'constraints.txt'))
        return Step(name, title, digest(sorted(pins.items()), packages), needs, (*constraints, *flags, *packages))

    key = wheel_key(python, pins['torch'], target.tag, pins['mmcv'])
    mm = {name: pins[name] for name in ('mmengine', 'mmcv')}
    sources = [(ROOT / name).read_text() for name in ('setup.py', 'scsa_mm/version.py')]
    version = re.search(r"__version__ = '([^']+)'", sources[1])[1]
    editable = ('--no-deps', '--no-build-isolation', '-e', str(ROOT))
    return [
        pip_step('tools', TOOLS),
        pip_step('torch', TORCH),
        pip_step('packages', PACKAGES, '--no-build-isolation'),
        Step('mmcv', f'mmengine {mm["mmengine"]}, mmcv {mm["mmcv"]} with compiled ops', digest(key, mm), mm),
        Step('scsa_mm', 'scsa_mm itself, editable', digest(sources, ROOT), {'scsa-mm': version}, editable),
    ]


def look(env: Env) -> tuple[list[Step], set[str], Target]:
    """All steps, the names of those that are done, and what mmcv's ops are for as far as that is known."""
    pins = read_pins(env.version)

    def has_wheel(tag: str) -> bool:
        return cached_wheel(wheel_key(env.version, pins['torch'], tag, pins['mmcv'])) is not None

    present, cuda = installed(env.site), torch_cuda(env.site)
    target = choose_target(cuda, has_wheel) if 'torch' in present else Target()
    steps = plan(pins, env.version, target)
    return steps, {step.name for step in steps if step.is_done(env, present)}, target


# --- the virtual environment and pip in it


def probe(venv: Path) -> Env | None:
    """The environment at this place if its Python runs."""
    try:
        answer = subprocess.run([venv / 'bin' / 'python', '-I', '-c', PROBE], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    version, site, include = json.loads(answer.stdout)
    return Env(venv, tuple(version), Path(site), Path(include))


def child_env(venv: Path) -> dict[str, str]:
    """Ours, without what leads pip astray, and with temporary files on the disk of the environment, as torch's
    downloads do not fit into many a /tmp."""
    kept = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONHOME', 'PIP_USER')}
    path = f'{venv / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}'
    return {**kept, 'PATH': path, 'TMPDIR': str(venv / '.setup' / 'tmp'), 'PYTHONUNBUFFERED': '1'}


def make_venv(venv: Path, session: Session) -> Env:
    """The environment at this place, made anew if the making was interrupted or its Python is gone."""
    unfinished = venv / '.setup' / 'venv.started'
    env = None if unfinished.exists() else probe(venv)
    if env:
        return env
    unfinished.touch()
    for old in venv.iterdir():
        if old.name not in ('.setup', 'setup.log'):
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for marker in (venv / '.setup').glob('*.ok'):
        marker.unlink()
    # The real Python: the one that runs this may be a link inside the environment that was just emptied.
    base = getattr(sys, '_base_executable', sys.executable)
    code, lines = session.run([base, '-m', 'venv', str(venv)])
    env = probe(venv)
    if code or not env:
        raise SetupError(f'no virtual environment at {venv}: {failure(lines)}; full log: {session.log_path}')
    unfinished.unlink()
    return env


def heal_pip(env: Env, session: Session) -> None:
    """pip can be killed while it replaces itself, and some tools make environments without it."""
    if session.run([env.python, '-m', 'pip', '--version'])[0]:
        scrub(env.site)
        shutil.rmtree(env.site / 'pip', ignore_errors=True)
        session.run([env.python, '-m', 'ensurepip'])


def run_pip(
    venv: Env, session: Session, what: str, command: str, *arguments: str, env: dict[str, str] | None = None
) -> None:
    scrub(venv.site)
    # The pip that comes with Python may be too old to report raw progress.
    modern = int(installed(venv.site).get('pip', '0').split('.')[0]) >= 25
    flags = ['--disable-pip-version-check', '--no-input', f'--progress-bar={"raw" if modern else "off"}']
    full = [venv.python, '-m', 'pip', command, *flags, *arguments]
    code, lines = session.run(full, env or child_env(venv.path), watch_pip)
    if code:
        raise SetupError(f'pip could not {what}: {failure(lines)}; full log: {session.log_path}')


def install_mmcv(env: Env, step: Step, target: Target, session: Session) -> None:
    variables = child_env(env.path)
    present = installed(env.site)

    def ops_import() -> tuple[int, list[str]]:
        return session.run([env.python, '-c', 'import torch, mmcv._ext'], variables)

    is_there = all(present.get(name) == version for name, version in step.needs.items())
    if is_there and target.tag == 'cpu' and ops_import()[0] == 0:
        return  # installed by other means, and as good
    key = wheel_key(env.version, read_pins(env.version)['torch'], target.tag, step.needs['mmcv'])
    pip = functools.partial(run_pip, env, session)
    job = Job(step.needs['mmcv'], key, target, env.python, env.site, env.include, variables, pip)
    was_cached = cached_wheel(key) is not None
    while True:
        wheel = obtain(job, session)
        mmengine = f'mmengine=={step.needs["mmengine"]}'
        pip('install mmcv', 'install', '--no-deps', '--force-reinstall', mmengine, str(wheel))
        code, lines = ops_import()
        if code == 0:
            return
        if not was_cached:
            raise SetupError(f'the ops of mmcv do not import: {failure(lines)}; full log: {session.log_path}')
        # A home directory shared with a machine of other system libraries: build for this one.
        session.line('      the mmcv in the cache does not work here, building another')
        wheel.unlink()
        was_cached = False


# --- the whole


def check_before(venv: Path, env: Env | None, done: set[str]) -> None:
    """Find now what would fail after minutes of downloading."""
    version = env.version if env else sys.version_info[:2]
    if version < MIN_PYTHON:
        raise SetupError(f'Python {".".join(map(str, version))} is too old: 3.10 or newer is needed; set PYTHON=')
    ours = (venv / '.setup').is_dir()
    if not env and not ours and venv.is_dir() and any(venv.iterdir()):
        raise SetupError(f'{venv} is no virtual environment that works: remove it, or choose another place with VENV=')
    if not env and not importlib.util.find_spec('ensurepip'):
        raise SetupError('this Python cannot make virtual environments: e.g. `apt install python3-venv`')
    needs = [] if 'torch' in done else [('the environment', venv, DISK_VENV)]
    pins = read_pins(version)
    cached = (cache_root() / 'wheels').glob(wheel_key(version, pins['torch'], '*', pins['mmcv']) + '/*.whl')
    if 'mmcv' not in done and not any(cached) and 'mmcv' not in (installed(env.site) if env else {}):
        check_compiler(env.include if env else Path(sysconfig.get_path('include')))
        needs.append(('building mmcv', cache_root(), DISK_BUILD))
    check_disk(needs)


def set_up(venv: Path) -> None:
    env = probe(venv)
    steps, done, target = look(env) if env else ([], set(), Target())
    if steps and len(done) == len(steps):
        print(
            f'{venv.name} is up to date, with mmcv ops for {target.tag}', target.note, sep='\n' if target.note else ''
        )
        return
    check_before(venv, env, done)
    temporary = venv / '.setup' / 'tmp'
    temporary.mkdir(parents=True, exist_ok=True)
    session = Session(venv / 'setup.log')
    with session.locked(venv / '.setup' / 'lock', str(venv)):
        shutil.rmtree(temporary)
        temporary.mkdir()
        env = make_venv(venv, session)
        total = len(look(env)[0])
        for index in range(total):
            # Anew for each step: what mmcv is built for depends on the torch that is there by then.
            steps, done, target = look(env)
            step = steps[index]
            if step.name in done:
                session.line(f'[{index + 1}/{total}] {step.title}: there already')
                continue
            session.step(f'[{index + 1}/{total}] {step.title}')
            env.marker(step.name).unlink(missing_ok=True)
            if step.name == 'tools':
                heal_pip(env, session)
            if step.name == 'mmcv':
                install_mmcv(env, step, target, session)
            else:
                run_pip(env, session, f'install {step.title}', 'install', *step.pip)
            env.marker(step.name).write_text(step.asked)
            session.done()
        shutil.rmtree(temporary)
    session.line(f'{venv.name} is ready after {clock(session.start)}, with mmcv ops for {target.tag}')
    if target.note:
        session.line(target.note)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', default='.venv', help='where the virtual environment is or goes')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    # `make` and CI runners end us with SIGTERM: stop the running command then, as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        set_up(Path(args.venv).absolute())
    except (SetupError, OSError) as error:
        print(f'\nset-up failed: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up interrupted: run it again to go on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
