"""Miniature data for the configs."""

import pytest

from tests.configs.miniatures import SETS, run
from tests.conftest import ROOT


@pytest.fixture(scope='session')
def root(tmp_path_factory):
    """A folder with ``data/`` as the configs expect it; the tools run in it."""
    root = tmp_path_factory.mktemp('miniatures')
    (root / 'data').mkdir()
    for name, form, converter in SETS:
        out = root / 'data' / name
        run(root, ROOT / 'tools/make_miniature.py', '--dataset', form, '--out', out, '--train', 8, '--val', 4)
        if converter:
            run(root, ROOT / f'tools/dataset_converters/{converter}.py', out)
    (root / 'data/BCCD').symlink_to(root / 'data/VOCdevkit/VOC2007')
    return root
