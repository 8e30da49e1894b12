"""The same tools with configs of mmseg and mmpretrain."""

import json

import cv2
import numpy as np
import torch


def test_segmentation(images, tool, tmp_path):
    config = 'tests/data/tiny_fcn.py'
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    tool('train.py', config, '--work-dir', whole)
    # Iteration-based: resumed from the middle, the end is the same.
    tool('train.py', config, '--work-dir', parts, '--resume', whole / 'iter_2.pth')
    first, second = (torch.load(d / 'iter_4.pth', weights_only=True)['state_dict'] for d in (whole, parts))
    assert 'backbone.layer1.0.scsa.q.weight' in first
    assert all(torch.equal(first[k], second[k]) for k in first)

    checkpoint = whole / 'iter_4.pth'
    metrics = []
    for name, processes, more in (('test.py', [], []), ('dist_test.sh', [2], []), ('test.py', [], ['--tta'])):
        out = tmp_path / 'metrics.json'
        tool(name, config, checkpoint, *processes, '--work-dir', whole, '--out', out, *more)
        metrics.append(json.loads(out.read_text())['mIoU'])
    assert metrics[0] == metrics[1]
    assert metrics[2] > 0

    maps, show = tmp_path / 'maps', tmp_path / 'show'
    tool('test.py', config, checkpoint, '--work-dir', whole, '--out', maps, '--show-dir', show)
    assert set(np.unique(cv2.imread(str(maps / '1.png'), cv2.IMREAD_UNCHANGED))) <= {0, 1}
    assert len(list(show.rglob('*.png'))) == 4


def test_classification(images, tool, tmp_path):
    config = 'tests/data/tiny_classifier.py'
    tool('train.py', config, '--work-dir', tmp_path)
    found = []
    for more in ([], ['--tta'], ['--show-dir', tmp_path / 'show']):
        out = tmp_path / 'metrics.json'
        tool('test.py', config, tmp_path / 'epoch_1.pth', '--work-dir', tmp_path, '--out', out, *more)
        found.append(json.loads(out.read_text())['accuracy/top1'])
    assert found[0] == found[2]
    assert all(value in (0, 25, 50, 75, 100) for value in found)
    assert len(list((tmp_path / 'show').rglob('*.png'))) == 4
