"""Every config trains, saves and is evaluated through the tools, on a miniature of its data set in the raw format."""

import json
import re
from pathlib import Path

import pytest
import torch

from scsa_mm.runtime.config import load_config
from tests.configs.miniatures import options_of, run
from tests.conftest import ROOT

CONFIGS = sorted(p.stem for p in Path('configs').glob('*.py'))
# One of each kind of data and model in `make test`; the others in `make test-all`.
SAMPLE = {
    'cascade_rcnn_r50_scsa_visdrone',
    'faster_rcnn_r50_scsa_flir',
    'mobilenet_v2_scsa_in1k',
    'resnet50_ema_cifar100',
    'retinanet_r50_scsa_voc',
    'upernet_r50_scsa_ade20k',
    'yolox_s_ema_visdrone',
}
METRICS = {
    'coco': 'coco/bbox_mAP',
    'visdrone': 'visdrone/AP',
    'exdark': 'coco/bbox_mAP',
    'flir': 'coco/bbox_mAP',
    'voc': 'pascal_voc/mAP',
    'bccd': 'pascal_voc/mAP',
    'ade20k': 'mIoU',
    'in1k': 'accuracy/top1',
    'cifar100': 'accuracy/top1',
}


@pytest.mark.parametrize('name', [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS])
def test_trains_saves_and_is_evaluated(name, root, tmp_path):
    config = ROOT / f'configs/{name}.py'
    cfg = load_config(str(config))
    options = ['--cfg-options', *options_of(cfg)]
    log = run(root, ROOT / 'tools/train.py', config, '--work-dir', tmp_path, *options)
    losses = [float(value) for value in re.findall(r'\bloss: ([\d.naif]+)', log)]
    assert losses and all(0 < loss < 1e4 for loss in losses), losses
    assert re.search(r'attention: \d+ x (SCSA|EMA), [\d,]+ parameters', log)
    (checkpoint,) = tmp_path.glob('*_1.pth')
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())

    out = tmp_path / 'metrics.json'
    run(root, ROOT / 'tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'test', '--out', out, *options)
    metrics = json.loads(out.read_text())
    assert 0 <= metrics[METRICS[name.rpartition('_')[2]]] <= 100
