"""tools/analysis/compare_attention.py as a user runs it."""

import csv
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import ROOT, TINY

TOOL = 'tools/analysis/compare_attention.py'
CLASSIFIER = 'tests/data/tiny_classifier.py'


def rows_of(path):
    with path.open(newline='') as file:
        return {row['attention']: row for row in csv.DictReader(file)}


@pytest.fixture
def main(monkeypatch):
    """Run the tool in this process; returns its exit status."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, args)])
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(TOOL, run_name='__main__')
        signal.signal(signal.SIGTERM, before)
        return caught.value.code

    return run


def test_cost_of_one_module(main, tmp_path, capsys):
    out = tmp_path / 'new' / 'cost'
    shape = ['--shape', 2, 16, 8, 6]
    names = ['SE', 'EMA:groups=7', 'SCSA:num_heads=4']
    assert main('cost', '--attention', *names, *shape, '--repeats', 2, '--out', out, '--device', 'cpu') == 0
    rows = rows_of(out / 'cost.csv')
    assert list(rows) == ['none', *names]
    assert rows['none']['parameters'] == rows['none']['flops_per_image'] == rows['none']['saved_bytes'] == '0'
    assert rows['SE']['parameters'] == rows['SE']['added_parameters'] == '32'
    assert rows['SE']['input'] == '(2, 16, 8, 6)' and rows['SE']['threads'] == str(torch.get_num_threads())
    assert f'torch {torch.__version__}' in rows['SE']['versions']
    assert 'groups' in rows['EMA:groups=7']['problem'] and rows['EMA:groups=7']['forward_ms'] == ''
    text = (out / 'cost.md').read_text()
    lines = text.splitlines()
    assert lines[0] == '### Cost of attention: one module, map (2, 16, 8, 6)'
    assert lines[2].startswith(
        '| attention | parameters | added | MFLOPs | kept MiB | forward ms | x | training ms | x |'
    )
    assert [line.split(' | ')[0] for line in lines[4:8]] == ['| none', *(f'| {name}' for name in names)]
    assert 'none is a plain copy of its input' in text and 'not pooling, activations' in text
    assert cv2.imread(str(out / 'cost.png')).std() > 1
    assert sorted(p.name for p in out.iterdir()) == ['cost.csv', 'cost.json', 'cost.md', 'cost.png']
    shown = capsys.readouterr().out
    assert 'EMA:groups=7' in shown and f'written: {out}/cost.csv' in shown

    assert main('cost', '--attention', 'SE', *shape, '--out', out) == 2
    assert 'cost.csv of an earlier comparison; choose another --out' in capsys.readouterr().err


def test_cost_in_a_backbone(main, tmp_path):
    args = ['mmdet.ResNet(depth=18, base_channels=8)', '--attention', 'none', 'SE:reduction=2', '--image-size', 32, 32]
    assert main('cost', *args, '--batch-size', 2, '--stages', 4, '--repeats', 1, '--out', tmp_path) == 0
    rows = rows_of(tmp_path / 'cost.csv')
    # Before the last convolution of the two blocks of the last stage, with 64 channels.
    assert rows['SE:reduction=2']['added_parameters'] == str(2 * 2 * 64 * 32)
    assert int(rows['SE:reduction=2']['flops_per_image']) - int(rows['none']['flops_per_image']) == 2 * 2 * 64 * 32


PEER = """
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels, bias):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x):
        return x * self.layer(x.mean((2, 3), keepdim=True)).sigmoid()
"""


def test_cost_of_whole_steps_with_a_peer(main, tmp_path, monkeypatch):
    monkeypatch.setenv('SEGMENTATION', 'nowhere')
    (tmp_path / 'peer.py').write_text(PEER)
    peer = ['--peer', tmp_path / 'peer.py:Gate', '--peer-kwargs', 'bias=False']
    args = ['tests/data/tiny_fcn.py', '--part', 'step', '--attention', 'none', 'SE:reduction=2', *peer]
    args += ['--stages', 4, '--image-size', 32, 32, '--repeats', 1, '--device', 'cpu']
    out = tmp_path / 'out'
    assert main('cost', *args, '--cfg-options', 'model.backbone.plugins=None', '--out', out) == 0
    rows = rows_of(out / 'cost.csv')
    gate = 'peer.py:Gate(bias=False)'
    assert list(rows) == ['none', 'SE:reduction=2', gate]
    # Three blocks with 32 channels.
    assert rows['SE:reduction=2']['added_parameters'] == rows[gate]['added_parameters'] == str(3 * 32 * 32)
    for row in rows.values():
        assert row['problem'] == row['flops_per_image'] == '' and float(row['training_ms']) > 0
    text = (out / 'cost.md').read_text()
    assert 'losses on made-up annotations, backward and plain SGD; and prediction' in text and 'MFLOPs' not in text


def test_all_fail(main, tmp_path):
    assert main('cost', '--attention', 'EMA:groups=7', '--shape', 1, 8, 2, 2, '--repeats', 1, '--out', tmp_path) == 1
    assert 'groups' in (tmp_path / 'cost.md').read_text()


COST = ['cost', '--attention', 'SE', '--out', 'OUT']
TRAIN = ['train', CLASSIFIER, '--attention', 'none', 'SE', '--metric', 'accuracy/top1', '--out', 'OUT']


@pytest.mark.parametrize(
    'args, message',
    [
        (['cost', '--attention', 'SEE', '--out', 'OUT'], "no attention 'SEE'; did you mean SE"),
        ([*COST, '--repeats', '0'], '--repeats is at least 1, got 0'),
        ([*COST, '--shape', '1', '8', '0', '2'], '--shape is N C H W'),
        (
            [*COST, '--stages', '1'],
            '--stages, --position, --before, --after, --cfg-options and --part step need a HOST',
        ),
        (['cost', 'mmdet.ResNet(depth=18)', *COST[1:], '--part', 'step'], '--part step needs a config'),
        (['cost', CLASSIFIER, *COST[1:], '--part', 'step'], 'for detectors of mmdet and segmentors of mmseg'),
        ([*COST, '--peer', 'nowhere.py:SCSA'], 'nowhere.py does not exist'),
        (['cost', 'mmdet.ResNet(50)', *COST[1:]], 'a module is written as mmdet.ResNet(depth=50)'),
        (['cost', 'mmdet::retinanet/nothing.py', *COST[1:]], 'does not exist'),
        (['cost', TINY, *COST[1:]], 'take them out: --cfg-options model.backbone.plugins=None'),
        (['cost', CLASSIFIER, *COST[1:], '--image-size', '0', '4'], '--batch-size and --image-size are at least 1'),
        ([*TRAIN, '--seeds', '1', '1'], '--seeds are different numbers from 0, got 1 1'),
        ([*TRAIN], 'train data: nowhere/ not found'),
        (['train', 'mmdet::_base_/default_runtime.py', *TRAIN[2:]], 'has no model.backbone'),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(main, tmp_path, capsys, monkeypatch, args, message):
    monkeypatch.setenv('CLASSIFICATION', 'nowhere')
    out = tmp_path / 'out'
    assert main(*(out if arg == 'OUT' else arg for arg in args)) == 2
    # mmengine's logger, which lives longer than pytest's capture, may complain on its own.
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0], lines
    assert not out.exists()


def test_out_that_cannot_be_made(main, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert main(*COST[:-1], tmp_path / 'file' / 'out') == 2
    assert 'error: --out' in capsys.readouterr().err


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    """With four pictures, dark on one side, as mmpretrain reads them."""
    root = tmp_path_factory.mktemp('pictures')
    for i in range(4):
        folder = root / ('left', 'right')[i % 2]
        folder.mkdir(exist_ok=True)
        picture = np.full((64, 64, 3), 40 * i, np.uint8)
        picture[:, :32] += 60
        cv2.imwrite(str(folder / f'{i}.png'), picture)
    return {**os.environ, 'CLASSIFICATION': str(root), 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def command(out, *more, names=('none', 'SCSA')):
    epochs = 5
    args = ['--attention', *names, '--seeds', '0', '1', '--metric', 'accuracy/top1', '--out', str(out), *more]
    return [sys.executable, TOOL, 'train', CLASSIFIER, *args, '--cfg-options', f'train_cfg.max_epochs={epochs}']


def compare(environment, *args, status=0, **kwargs):
    done = subprocess.run(command(*args, **kwargs), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_killed_and_called_again_equals_uninterrupted(environment, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    compare(environment, whole)

    process = subprocess.Popen(command(parts), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    cut = parts / 'runs/SCSA/seed_0'
    deadline = time.time() + 120
    while not (cut / 'last_checkpoint').exists() and time.time() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = parts / 'runs/none/seed_0/result.json'
    when = done.stat().st_mtime_ns
    time.sleep(1)  # the training is ended with the tool; it needs a moment
    assert not (cut / 'epoch_5.pth').exists(), 'the run was over before it could be killed'
    assert not (parts / 'training.csv').exists()

    shown = compare(environment, parts)
    assert re.search(r'SCSA, seed 0: goes on', shown) and re.search(r'none, seed 1: starts', shown)
    assert 'none, seed 0: starts' not in shown and done.stat().st_mtime_ns == when
    assert (parts / 'training.csv').read_text() == (whole / 'training.csv').read_text()
    assert (parts / 'training.md').read_text() == (whole / 'training.md').read_text()
    for name in ('none/seed_0', 'SCSA/seed_0', 'none/seed_1', 'SCSA/seed_1'):
        first, second = (
            torch.load(folder / 'runs' / name / 'epoch_5.pth', map_location='cpu')['state_dict']
            for folder in (whole, parts)
        )
        assert ('backbone.layer1.0.scsa.q.weight' in first) == name.startswith('SCSA')
        assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    rows = rows_of(whole / 'training.csv')
    for row in rows.values():
        values = [float(row['seed_0']), float(row['seed_1'])]
        assert float(row['mean']) == sum(values) / 2 and all(v in (0, 25, 50, 75, 100) for v in values)
    assert cv2.imread(str(whole / 'training.png')).std() > 1


@pytest.mark.slow
def test_a_failing_attention_is_a_row_and_the_others_go_on(environment, tmp_path, main, monkeypatch, capsys):
    # The first stage has 4 channels, which 3 groups do not divide.
    names = ('EMA:groups=3', 'none')
    shown = compare(environment, tmp_path, names=names, status=1)
    rows = rows_of(tmp_path / 'training.csv')
    assert 'groups' in rows['EMA:groups=3']['problem'] and rows['EMA:groups=3']['mean'] == ''
    assert rows['none']['runs'] == '2' and rows['none']['problem'] == ''
    assert '2 of 4 runs failed' in shown
    assert '| EMA:groups=3 |' in (tmp_path / 'training.md').read_text()

    # Costs that were measured in the same folder stand beside.
    monkeypatch.setenv('CLASSIFICATION', environment['CLASSIFICATION'])
    size = ['--image-size', 64, 64, '--repeats', 1]
    assert main('cost', CLASSIFIER, '--attention', 'ECA', *size, '--out', tmp_path) == 0
    assert json.loads((tmp_path / 'cost.json').read_text())['model']['backbone']['depth'] == 18
    compare(environment, tmp_path, names=names, status=1)
    joined = rows_of(tmp_path / 'training.csv')['none']
    assert joined['parameters'] == rows_of(tmp_path / 'cost.csv')['none']['parameters'] != ''
    assert joined['seed_0'] == rows['none']['seed_0']

    capsys.readouterr()
    assert main(*command(tmp_path, names=('none',))[2:]) == 2
    assert 'compares --attention EMA:groups=3 none --seeds 0 1; name these and more' in capsys.readouterr().err
