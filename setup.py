"""Packaging of scsa_mm."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
README = ROOT / 'README.md'

setup(
    name='scsa_mm',
    # Read, not imported: the package needs torch, which an isolated build does not have.
    version=re.search(r"__version__ = '([^']+)'", (ROOT / 'scsa_mm' / 'version.py').read_text())[1],
    description='SCSA, EMA and other attention modules for MMDetection, MMSegmentation and MMPretrain',
    long_description=README.read_text(encoding='utf-8') if README.is_file() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['scsa_mm', 'scsa_mm.*']),
    package_data={'scsa_mm.ops.native': ['*.cpp', '*.h']},
    # torch, mmengine, mmcv and the mm packages are missing on purpose: the user has them, perhaps as OneDL forks whose
    # distributions have other names, and pip must not touch them.
    install_requires=['defusedxml', 'matplotlib', 'rich'],
    extras_require={'dev': ['onnx', 'onnxruntime', 'onnxscript', 'pre-commit', 'pytest', 'pytest-xdist', 'ruff']},
    classifiers=[
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
    ],
    zip_safe=False,
)
