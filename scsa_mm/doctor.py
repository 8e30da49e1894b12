"""``python -m scsa_mm.doctor``: what is installed and usable, what is wrong, and the way out.

Works with the packages of OpenMMLab ("upstream") and with the OneDL forks, which have the same import names, and also
where torch or mmengine are missing. The exit status is 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.metadata as metadata
import importlib.util
import inspect
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from scsa_mm.version import __version__

# The distributions that can bring an import name. Metadata alone does not tell for editable installations.
DISTRIBUTIONS = {
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-full', 'mmcv-lite', 'onedl-mmcv', 'onedl-mmcv-lite'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
}
FRAMEWORKS = ('mmdet', 'mmseg', 'mmpretrain')
# Imported besides the package: what a training run needs, and what undeclared dependencies break.
DEEPER = {'mmengine': 'mmengine.runner', **{name: f'{name}.models' for name in FRAMEWORKS}}

CHECKED = ('torch', 'torchvision', 'numpy', 'cv2', 'timm', 'triton', *DISTRIBUTIONS)
LABELS = {'cv2': 'opencv'}

REBUILD = (
    '`make setup` in a checkout of scsa_mm builds it, or by hand: pip install "setuptools<81" wheel ninja psutil; '
    'pip install --no-build-isolation --no-binary {name} --force-reinstall --no-deps {name}=={version}'
)
WAYS_OUT = {
    'torch': '`make setup` in a checkout of scsa_mm, or: pip install torch torchvision',
    'mmengine': '`make setup` in a checkout of scsa_mm, or: pip install mmengine (or onedl-mmengine)',
    'mmcv': '`make setup` in a checkout of scsa_mm, which builds it with its ops',
    'cv2': 'pip install opencv-python-headless',
    **dict.fromkeys(('ftfy', 'regex'), 'pip install ftfy regex'),
    'pkg_resources': 'pip install "setuptools<81"',
}


class Row(NamedTuple):
    name: str
    version: str
    status: str


class Problem(NamedTuple):
    what: str
    way_out: str


class Report:
    """What the checks found, in the order of the output."""

    def __init__(self) -> None:
        self.packages: list[Row] = []
        self.devices: list[Row] = []
        self.names: list[Row] = []
        self.notes: list[str] = []
        self.problems: list[Problem] = []

    def problem(self, what: str, way_out: str) -> None:
        if all(what != known.what for known in self.problems):
            self.problems.append(Problem(what, way_out))


@functools.cache
def load(name: str) -> ModuleType | Exception:
    """The module, or what importing it raised."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:
            return error if isinstance(error, Exception) else ImportError(f'{name} ends the process when imported')


def is_there(name: str) -> bool:
    return isinstance(load(name), ModuleType)


def is_missing(name: str) -> bool:
    """Whether the module is not installed, as opposed to one that is and does not import."""
    error = load(name)
    return isinstance(error, ModuleNotFoundError) and error.name == name


def one_line(error: Exception) -> str:
    text = re.sub(r'\x1b\[[0-9;]*m', '', ' '.join(str(error).split()))
    refused = re.search(r'Unsupported global: GLOBAL \S+', text)  # what matters in half a page by torch.load
    return f'{type(error).__name__}: {refused[0] if refused else text}'[:300]


def outcome(act: Callable[..., object], *arguments: object) -> str:
    """'ok', or what the call raised."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            act(*arguments)
        except Exception as error:
            return one_line(error)
    return 'ok'


def owners(name: str) -> list[str]:
    """The installed distributions that bring this import name; more than one is one too many."""
    found = set(metadata.packages_distributions().get(name, ()))
    for distribution in DISTRIBUTIONS.get(name, ()):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(distribution)
            found.add(distribution)
    return sorted(found)


def version_of(name: str) -> str:
    module = load(name)
    if isinstance(module, ModuleType) and hasattr(module, '__version__'):
        return str(module.__version__)
    with contextlib.suppress(metadata.PackageNotFoundError, IndexError):
        return metadata.version((owners(name) or [name])[0])
    return '-'


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r'\d+', version)[:2])


# --- packages


def way_out(name: str, error: Exception) -> str:
    """How to mend an import that failed."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.split('.')[0]
        return WAYS_OUT.get(top, f'pip install {top}')
    if 'libGL' in text or 'libgthread' in text:
        return 'pip uninstall opencv-python; pip install --force-reinstall opencv-python-headless'
    if 'is used but incompatible' in text:
        wanted = re.search(r'mmcv>=[^\s,]+, *<=?\d[\d.]*\d', text)
        return (
            f'install {wanted[0] if wanted else "a version in that range"}; mmcv 2.1.0 suits all of upstream: '
            + (WAYS_OUT['mmcv'])
        )
    if name == 'torchvision':
        return torchvision_for(version_of('torch'))
    return f'reinstall {name} in the version that belongs to the others (constraints.txt of scsa_mm has a set)'


def torchvision_for(torch: str) -> str:
    major, minor = (*numbers(torch), 0, 0)[:2]
    if major != 2:
        return 'install the torchvision that was released with this torch, from the same place'
    return f'install the torchvision that belongs to torch {torch}, from the same place: torchvision 0.{minor + 15}'


def blame(name: str, error: Exception) -> str:
    """The package that is at fault when importing ``name`` raised this: itself, or one that it imports."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return error.name.split('.')[0]
    culprit, trace = name, error.__traceback__
    while trace:
        package = str(trace.tb_frame.f_globals.get('__name__')).split('.')[0]
        if package in CHECKED and not is_there(package):
            culprit = package
        trace = trace.tb_next
    return culprit


def check_package(report: Report, name: str, required: bool = False, remark: str = '') -> None:
    """A row for one package, and a problem if it is required and missing, or does not import."""
    label = LABELS.get(name, name)
    error = load(name) if not is_there(name) else load(DEEPER.get(name, name))
    if isinstance(error, ModuleType):
        report.packages.append(Row(label, version_of(name), remark or 'ok'))
        return
    if is_missing(name):
        report.packages.append(Row(label, '-', 'not installed'))
        if required:
            report.problem(f'{label} is not installed', WAYS_OUT.get(name, f'pip install {name}'))
        return
    culprit = blame(name, error)
    if culprit == name or culprit not in CHECKED:
        report.packages.append(Row(label, version_of(name), f'does not import: {one_line(error)}'))
        report.problem(f'{label} {version_of(name)} does not import: {one_line(error)}', way_out(name, error))
        return
    report.packages.append(Row(label, version_of(name), f'does not import without {LABELS.get(culprit, culprit)}'))
    if is_missing(culprit):  # one that is there but broken has a problem of its own
        report.problem(
            f'{LABELS.get(culprit, culprit)} is not installed', WAYS_OUT.get(culprit, f'pip install {culprit}')
        )


def check_basics(report: Report) -> None:
    report.packages.append(Row('Python', platform.python_version(), sys.executable))
    attention = load('scsa_mm.attention')
    where = str(Path(__file__).parent)
    broken = '' if isinstance(attention, ModuleType) else f', does not import: {one_line(attention)}'
    report.packages.append(Row('scsa_mm', __version__, where + broken))
    cuda = version_of_cuda()
    check_package(report, 'torch', required=True, remark=f'built for CUDA {cuda}' if cuda else 'built for CPU only')
    check_package(report, 'torchvision')
    check_package(report, 'numpy', required=True)
    check_package(report, 'cv2', remark=', '.join(owners('cv2')))
    check_package(report, 'timm')
    check_package(report, 'triton')
    if broken and is_there('torch') and is_there('mmengine'):
        report.problem(f'scsa_mm: {one_line(attention)}', 'pip install --force-reinstall --no-deps scsa_mm')


def check_setuptools(report: Report) -> None:
    has_it = importlib.util.find_spec('pkg_resources') is not None
    check_package(report, 'setuptools', remark=f'{"has" if has_it else "without"} pkg_resources')
    utilities = load('mmengine.utils.package_utils')
    if not has_it and isinstance(utilities, ModuleType) and 'pkg_resources' in inspect.getsource(utilities):
        report.problem(
            f"mmengine {version_of('mmengine')} cannot resolve `_base_ = 'mmdet::...'` without pkg_resources, "
            'which setuptools 82 dropped',
            WAYS_OUT['pkg_resources'],
        )


def check_mm(report: Report) -> None:
    """mmengine, mmcv and the frameworks: whose they are, whether they import, and whether two are in one place."""
    for name in DISTRIBUTIONS:
        found = owners(name)
        origin = 'OneDL' if any(owner.startswith('onedl-') for owner in found) else 'upstream'
        is_needed = name == 'mmcv' and any(owners(framework) for framework in FRAMEWORKS)
        check_package(report, name, required=is_needed or name == 'mmengine', remark=f'{origin} ({", ".join(found)})')
        if len(found) > 1:
            both = ' '.join(found)
            report.problem(
                f'{both} are installed at once and overwrite each other, as all are imported as {name}',
                f'pip uninstall {both}; then install one of them again',
            )
    if len({owner.startswith('onedl-') for name in DISTRIBUTIONS for owner in owners(name)}) > 1:
        report.notes.append('upstream packages and OneDL forks are mixed: this can work, but nobody tests it')


# --- the ops of mmcv


def run_nms(device: str) -> list[int]:
    """Indices that mmcv's nms keeps of three boxes; the second overlaps the first and scores less."""
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]], device=device)
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    return nms(boxes, scores, iou_threshold=0.5)[1].tolist()


def check_ops(report: Report) -> None:
    if not is_there('mmcv'):
        return
    version, name = version_of('mmcv'), (owners('mmcv') or ['mmcv'])[0]
    rebuild = REBUILD.format(name=name, version=version)
    extension = load('mmcv._ext')
    if not isinstance(extension, ModuleType):
        what = f'the compiled ops of mmcv {version} do not fit this torch: {one_line(extension)}'
        if is_missing('mmcv._ext'):
            what = f'mmcv {version} has no compiled ops (mmcv._ext is missing): pip built it where it saw no torch'
        if name == 'mmcv' and numbers(version_of('torch')) >= (2, 15):
            rebuild = (
                f'torch {version_of("torch")} demands C++20, which mmcv {version} does not compile with: torch<2.15'
            )
        report.devices.append(Row('mmcv ops', version, 'missing'))
        report.problem(what, rebuild)
        return
    for device in ('cpu', 'cuda') if cuda_works() else ('cpu',):
        try:
            kept = run_nms(device)
            status = 'ok' if kept == [0, 2] else f'wrong: nms keeps {kept} instead of [0, 2]'
        except Exception as error:
            status = f'fail: {one_line(error)}'
        report.devices.append(Row(f'mmcv ops on {device}', version, status))
        if status != 'ok':
            toolkit = f'with nvcc of CUDA {version_of_cuda()} on PATH, ' if device == 'cuda' else ''
            report.problem(f'mmcv ops on {device} {status}', toolkit + rebuild)


# --- devices


def version_of_cuda() -> str | None:
    """What torch is built for; None for a build for CPUs."""
    return getattr(getattr(load('torch'), 'version', None), 'cuda', None)


@functools.cache
def cuda_works() -> bool:
    torch = load('torch')
    return isinstance(torch, ModuleType) and torch.cuda.is_available()


def gpu_seen_by_driver() -> str:
    """The name of the first GPU that the driver reports, or nothing."""
    if shutil.which('nvidia-smi'):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            query = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
            answer = subprocess.run(query, capture_output=True, text=True, timeout=60)
            return answer.stdout.strip().split('\n')[0] if answer.returncode == 0 else ''
    return ''


def check_devices(report: Report) -> None:
    torch = load('torch')
    if not isinstance(torch, ModuleType):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    report.devices.append(Row('cpu', f'{torch.get_num_threads()} threads', f'ok, {cores} cores'))
    if not cuda_works():
        why_no_cuda(report, torch)
        return
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        try:
            ok = float(torch.ones(8, device=f'cuda:{index}').sum()) == 8
            status = 'ok' if ok else 'computes wrong sums'
        except Exception as error:
            status = one_line(error)
        report.devices.append(Row(f'cuda:{index}', f'{torch.cuda.get_device_name(index)}, sm_{major}{minor}', status))
        if status != 'ok':
            way_out = f'a torch with kernels for sm_{major}{minor}; this one has {" ".join(torch.cuda.get_arch_list())}'
            report.problem(f'cuda:{index} is not usable: {status}', way_out)
    triton = 'ok' if is_there('triton') else 'not installed: fused kernels are off'
    report.devices.append(Row('Triton kernels', version_of('triton'), triton))


def why_no_cuda(report: Report, torch: ModuleType) -> None:
    gpu = gpu_seen_by_driver()
    if not gpu:
        report.devices.append(Row('cuda', '-', 'no NVIDIA GPU, or no driver for it'))
    elif torch.version.cuda is None:
        report.devices.append(Row('cuda', gpu, 'this torch is built for CPU only'))
        report.notes.append(f'the {gpu} is idle: install a torch built for CUDA to use it')
    else:
        reason = outcome(torch.cuda.init)
        report.devices.append(Row('cuda', gpu, reason))
        report.problem(
            f'torch cannot use the {gpu}: {reason}',
            f'update the NVIDIA driver to one for CUDA {torch.version.cuda}, or install a torch for an older CUDA; '
            'look whether CUDA_VISIBLE_DEVICES hides the GPU',
        )


# --- names in configs, and checkpoints


def resolve(scope: str, name: str) -> None:
    """Build the type as a plugin under a default scope, the way a backbone does; raises if it cannot."""
    from mmcv.cnn import build_plugin_layer
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope(scope):
        build_plugin_layer({'type': name}, in_channels=8)


def read_base(scope: str) -> None:
    """Read a config that builds on an installed one; raises if it cannot."""
    from mmengine.config import Config

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'leaf.py'
        path.write_text(f"_base_ = '{scope}::_base_/default_runtime.py'\n")
        Config.fromfile(path)


def check_names(report: Report) -> None:
    if not is_there('scsa_mm.attention') or not is_there('mmcv'):
        return
    for scope in (scope for scope in FRAMEWORKS if is_there(DEEPER[scope])):
        for name in ('SCSA', 'scsa_mm.SCSA'):
            status = outcome(resolve, scope, name)
            report.names.append(Row(f'type={name!r}', f'default_scope={scope!r}', status))
            if status != 'ok':
                report.problem(
                    f'type={name!r} does not resolve under default_scope={scope!r}: {status}',
                    "custom_imports = dict(imports=['scsa_mm']) in the config; look which scsa_mm is imported (above)",
                )


def check_bases(report: Report) -> None:
    if not is_there('mmengine.config'):
        return
    for scope in filter(is_there, FRAMEWORKS):
        base = f"_base_ = '{scope}::...'"
        status = outcome(read_base, scope)
        report.names.append(Row(base, '', status))
        if status != 'ok' and 'pkg_resources' not in status:  # which is a problem of its own
            place = Path(load(scope).__file__).parent / '.mim' / 'configs'
            report.problem(f'{base} does not resolve: {status}', f'name the file in _base_: {place}/...')


def load_checkpoint() -> None:
    """Load what mmengine saves with ``weights_only=True``, the default from torch 2.6; raises if that is refused."""
    import torch
    from mmengine.logging import HistoryBuffer
    from mmengine.runner import CheckpointLoader

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'epoch_1.pth')
        torch.save({'message_hub': {'loss': HistoryBuffer([1.0, 2.0], [1, 1])}}, path)
        CheckpointLoader.load_checkpoint(path, logger='silent')
        # Once more without mmengine: OneDL's withdraws the types that it allowed for its own loading.
        torch.load(path, weights_only=True)


def check_checkpoints(report: Report) -> None:
    if not is_there('mmengine.runner') or not is_there('scsa_mm.attention'):
        return
    status = outcome(load_checkpoint)
    report.names.append(Row('checkpoints of mmengine', 'weights_only=True', status))
    if status != 'ok':
        report.problem(
            f'checkpoints of mmengine {version_of("mmengine")} do not load with weights_only=True: {status}',
            'update scsa_mm, which declares the types in them safe; load only files you trust otherwise',
        )


CHECKS: tuple[Callable[[Report], None], ...] = (
    *(check_basics, check_setuptools, check_mm),
    *(check_devices, check_ops, check_names, check_bases, check_checkpoints),
)


def examine() -> Report:
    report = Report()
    for check in CHECKS:
        try:
            check(report)
        except Exception as error:  # a doctor that falls ill still tells what it saw
            report.problem(f'{check.__name__} itself failed: {one_line(error)}', 'please report this with the output')
    return report


# --- output


def print_plain(title: str, rows: list[Row]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    print(f'\n{title}')
    for name, version, status in rows:
        print(f'  {name:{widths[0]}}  {version:{widths[1]}}  {status}')


def print_rich(title: str, rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify='left', show_header=False)
    for column in range(3):
        table.add_column(overflow='fold', no_wrap=column == 0)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def show(report: Report) -> None:
    draw = print_rich if sys.stdout.isatty() and is_there('rich') else print_plain
    tables = {'Packages': report.packages, 'Devices and kernels': report.devices, 'In configs': report.names}
    for title, rows in filter(lambda table: table[1], tables.items()):
        draw(title, rows)
    print()
    for note in report.notes:
        print(f'note: {note}')
    for what, way_out in report.problems:
        print(f'wrong: {what}\n  way out: {way_out}')
    print('All is well.' if not report.problems else f'{len(report.problems)} thing(s) wrong.')


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    report = examine()
    show(report)
    return 1 if report.problems else 0


if __name__ == '__main__':
    sys.exit(main())
