"""What a figure was measured on."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

from ..runtime.errors import UserError
from ..version import __version__

# The OneDL forks have the same import names under distributions of their own.
PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmpretrain', 'timm', 'triton')


def describe_machine(device: torch.device) -> dict[str, str]:
    """Device, threads and versions, each as a short text."""
    versions = {'Python': platform.python_version(), 'torch': torch.__version__, 'scsa_mm': __version__}
    for package in PACKAGES:
        for distribution in (package, f'onedl-{package}'):
            try:
                versions[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    if device.type == 'cuda':
        versions['CUDA'] = str(torch.version.cuda)
    return {
        'device': torch.cuda.get_device_name() if device.type == 'cuda' else _cpu(),
        'threads': str(torch.get_num_threads()),
        'versions': ', '.join(f'{name} {version}' for name, version in versions.items()),
    }


def _cpu() -> str:
    name = platform.processor() or platform.machine()
    if sys.platform == 'linux':
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        name = next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), name)
    return f'{name}, {os.cpu_count()} cores seen'


def choose_device(name: str | None) -> torch.device:
    """The GPU if there is one, or what is asked for.

    Raises:
        UserError: if a GPU is asked for and torch finds none.
    """
    if name == 'cuda' and not torch.cuda.is_available():
        raise UserError(f'--device cuda: torch {torch.__version__} finds no GPU; leave it out to use the CPU')
    return torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
