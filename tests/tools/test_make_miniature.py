"""tools/make_miniature.py as a process: what it makes, what it refuses, and what it leaves when it is stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

ROOT = Path(__file__).resolve().parents[2]
SMALL = ('--train', '12', '--val', '8', '--size', '80x64')


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, str(ROOT / 'tools/make_miniature.py'), '--dataset', 'coco', '--out', str(out), *options]


def make(out: Path, *options: str) -> subprocess.CompletedProcess:
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(command(out, *options), capture_output=True, text=True, env=env)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('made') / 'set'
    done = make(out, *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{out}: 12 training and 8 held-out images of 80x64 pixels\n'
    return out


def test_two_runs_write_the_same_bytes(made, tmp_path):
    (tmp_path / 'set').mkdir()  # an empty folder is taken
    assert make(tmp_path / 'set', *SMALL).returncode == 0
    assert digest(tmp_path / 'set') == digest(made)
    assert len(list((made / 'train2017').iterdir())) == 12 and len(list((made / 'val2017').iterdir())) == 8
    assert os.listdir(tmp_path) == ['set']


def test_more_images_keep_the_earlier_ones(made, tmp_path):
    assert make(tmp_path / 'set', '--train', '14', '--val', '8', '--size', '80x64').returncode == 0
    few, more = digest(made), digest(tmp_path / 'set')
    assert all(more[name] == few[name] for name in few if name.endswith('.png'))


def test_same_set_again_is_left_alone(made):
    before = {p: p.stat().st_mtime_ns for p in made.rglob('*')}
    done = make(made, *SMALL)
    assert (done.returncode, done.stdout) == (0, f'{made} holds this set already: 12 training and 8 held-out images\n')
    assert {p: p.stat().st_mtime_ns for p in made.rglob('*')} == before


def test_other_parameters_are_refused(made):
    before = digest(made)
    done = make(made, *SMALL, '--seed', '5')
    assert done.returncode == 2
    assert done.stderr == (
        f'error: {made} holds a set with seed 0 (asked for 5); choose another folder or remove this one\n'
    )
    assert digest(made) == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    done = make(tmp_path, *SMALL)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1 and 'is not empty' in done.stderr
    assert os.listdir(tmp_path) == ['notes.txt']


def test_a_half_set_is_refused(made, tmp_path):
    """Without the manifest, which is written last, a folder is nobody's set."""
    (tmp_path / 'train2017').mkdir()
    assert 'holds no generated set' in make(tmp_path, *SMALL).stderr


@pytest.mark.parametrize(
    'options, message',
    [
        (('--size', '80'), "got '80'"),
        (('--size', '10x80'), 'at least 64x64'),
        (('--train', '0'), 'at least 1'),
        (('--seed', '-1'), 'seed'),
        (('--dataset', 'imagenot'), 'invalid choice'),
    ],
)
def test_wrong_options(tmp_path, options, message):
    done = make(tmp_path / 'set', *options)
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'set').exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    done = make(tmp_path / 'file' / 'set', *SMALL)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'file' in done.stderr


def test_a_set_with_a_test_split(tmp_path):
    out = tmp_path / 'set'
    for text in (f'{out}: ', f'{out} holds this set already: '):
        done = make(out, '--dataset', 'visdrone', '--train', '3', '--val', '2')
        assert done.returncode == 0 and done.stdout.startswith(f'{text}3 training, 2 validation and 2 test images')
    counts = {p.name: len(list((p / 'images').iterdir())) for p in out.glob('VisDrone2019-DET-*')}
    assert counts == {'VisDrone2019-DET-train': 3, 'VisDrone2019-DET-val': 2, 'VisDrone2019-DET-test-dev': 2}


@pytest.mark.parametrize(
    'options, message',
    [
        (('--dataset', 'cifar100', '--size', '80x64'), 'cifar100 has pictures of 32x32 pixels: leave --size out'),
        (('--dataset', 'voc', '--train', '2', '--val', '1'), 'a split of voc has at least 2'),
    ],
)
def test_options_that_a_format_cannot_have(tmp_path, options, message):
    done = make(tmp_path / 'set', *options)
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_stopped_run_leaves_no_half_set(tmp_path, how):
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    options = ('--train', '100000', '--size', '80x64')
    process = subprocess.Popen(command(tmp_path / 'set', *options), env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob('.*/train2017/*.png')):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (tmp_path / 'set').exists()
    if how != signal.SIGKILL:
        assert os.listdir(tmp_path) == []


def test_mmdet_reads_it(made):
    """Through the demo's own config: the right objects reach the model, crowds apart, empty images left out."""
    cfg = Config.fromfile(ROOT / 'configs/demo/mask_rcnn_r50_scsa_shapes.py')
    wanted = json.loads((made / 'annotations/instances_train2017.json').read_text())
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'data_root': str(made)})
    filled = {a['image_id'] for a in wanted['annotations']}
    assert len(dataset) == len(filled)
    assert dataset.metainfo['classes'] == tuple(c['name'] for c in wanted['categories'])
    for i in range(len(dataset)):
        image_id = dataset.get_data_info(i)['img_id']
        expected = [a for a in wanted['annotations'] if a['image_id'] == image_id and not a['iscrowd']]
        truth = dataset[i]['data_samples'].gt_instances
        assert truth.labels.tolist() == [a['category_id'] - 1 for a in expected]
        # The demo's scale enlarges these images from 80 x 64 to 160 x 128: areas grow by 4.
        areas = truth.masks.masks.sum(axis=(1, 2)) / 4
        assert areas == pytest.approx([a['area'] for a in expected], rel=0.1)
        sizes = (truth.bboxes.tensor[:, 2:] - truth.bboxes.tensor[:, :2]) / 2
        assert sizes.flatten().tolist() == [v for a in expected for v in a['bbox'][2:]]
