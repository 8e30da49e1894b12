"""What several test files need: a miniature data set, and the tools run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import scsa_mm  # noqa: F401  (lets torch.load read the checkpoints that the tools leave)

ROOT = Path(__file__).parents[1]
TINY = 'tests/data/tiny_mask_rcnn.py'
NO_GROUP_AT_EXIT = """
import atexit, os, sys
from pathlib import Path

@atexit.register
def check():
    dist = sys.modules.get('torch.distributed')
    threads = {file.read_text().strip() for file in Path('/proc/self/task').glob('*/comm')}
    if dist and dist.is_initialized() or 'pt_gloo_runloop' in threads:
        print('a process group is left', file=sys.stderr, flush=True)
        os._exit(1)
"""


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Configs and tools are named relative to the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope='session')
def miniature(tmp_path_factory):
    """A miniature COCO set, 8 training and 4 held-out images."""
    folder = tmp_path_factory.mktemp('data') / 'miniature_coco'
    subprocess.run(
        [sys.executable, 'tools/make_miniature.py', '--dataset', 'coco', '--out', folder, '--train', '8', '--val', '4'],
        cwd=ROOT,
        check=True,
    )
    return folder


@pytest.fixture(scope='session')
def environment(miniature):
    """The variables under which the tools find the package and the miniature set."""
    return {
        **os.environ,
        'MINIATURE_COCO': str(miniature),
        'PYTHONPATH': str(ROOT),
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
    }


@pytest.fixture(scope='session')
def images(tmp_path_factory, environment):
    """Four pictures, dark on one side, as mmseg and as mmpretrain read them."""
    root = tmp_path_factory.mktemp('other')
    for folder in ('images', 'labels', 'classes/left', 'classes/right'):
        (root / folder).mkdir(parents=True)
    for i in range(4):
        side = np.zeros((64, 64), np.uint8)
        side[:, 32:] = 1
        side = side if i % 2 else 1 - side
        picture = cv2.merge([side * 200 + i] * 3)
        cv2.imwrite(str(root / f'images/{i}.png'), picture)
        cv2.imwrite(str(root / f'labels/{i}.png'), side)
        cv2.imwrite(str(root / f'classes/{("left", "right")[i % 2]}/{i}.png'), picture)
    environment.update(SEGMENTATION=str(root), CLASSIFICATION=str(root / 'classes'))
    return root


@pytest.fixture(scope='session')
def tool(environment):
    """Run ``tools/NAME ARGS`` as a process; returns it with its output, having checked the exit status."""

    def run(name, *args, status=0):
        command = [sys.executable] if name.endswith('.py') else ['bash']
        done = subprocess.run(
            [*command, f'tools/{name}', *map(str, args)], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


@pytest.fixture
def no_group_at_exit(environment, tmp_path_factory, monkeypatch):
    """Let each process of a tool fail that comes to its end with a process group or with threads of one."""
    folder = tmp_path_factory.mktemp('at_exit')
    (folder / 'sitecustomize.py').write_text(NO_GROUP_AT_EXIT)
    monkeypatch.setitem(environment, 'PYTHONPATH', f'{folder}{os.pathsep}{ROOT}')


@pytest.fixture(scope='session')
def trained(tool, tmp_path_factory):
    """The work dir of a tiny Mask R-CNN, trained for two epochs without a break."""
    work_dir = tmp_path_factory.mktemp('trained')
    tool('train.py', TINY, '--work-dir', work_dir)
    return work_dir
