"""Every config file builds, has its attention, and starts as the model that it adds it to."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS, MODELS, DefaultScope

from scsa_mm.attention import SCSA
from scsa_mm.datasets import classes
from scsa_mm.runtime.config import load_config
from scsa_mm.runtime.report import attention_in

CONFIGS = sorted(str(p) for p in [*Path('configs').glob('*.py'), *Path('configs/demo').glob('*.py')])
COCO = [c for c in CONFIGS if c.endswith('_coco.py') and 'yolox' not in c]
R50_SCSA = [c for c in CONFIGS if 'r50_scsa' in c or 'resnet50_scsa' in c]


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('path', R50_SCSA, ids=lambda p: Path(p).stem)
def test_resnet50_has_scsa_in_all_sixteen_blocks(path):
    model = build(load_config(path))
    attention = {n: m for n, m in model.named_modules() if isinstance(m, SCSA)}
    assert len(attention) == 16
    assert all(n.startswith('backbone.layer') and n.endswith('.scsa') for n in attention)
    assert sum(p.numel() for m in attention.values() for p in m.parameters()) == 60_416
    assert all(p.requires_grad for m in attention.values() for p in m.parameters())


@pytest.mark.parametrize('path', [c for c in CONFIGS if '/demo/' not in c], ids=lambda p: Path(p).stem)
def test_the_baseline_is_the_same_without_attention(path):
    model, plain = build(load_config(path)), build(load_config(path, {'model.backbone.plugins': None}))
    attention = tuple(f'{name}.' for name in attention_in(model))
    assert attention and not attention_in(plain)
    assert [k for k in model.state_dict() if not k.startswith(attention)] == list(plain.state_dict())


@pytest.mark.parametrize(
    'end, names', [('visdrone', classes.VISDRONE), ('exdark', classes.EXDARK), ('flir', classes.FLIR)]
)
def test_class_lists(end, names):
    for path in (c for c in CONFIGS if c.endswith(f'_{end}.py')):
        cfg = load_config(path)
        for split in ('train', 'val', 'test'):
            dataset = cfg[f'{split}_dataloader'].dataset
            assert tuple(dataset.get('dataset', dataset).metainfo.classes) == tuple(names)
        assert set(re.findall(r"'num_classes': (\d+)", str(cfg.model.to_dict()))) == {str(len(names))}


@pytest.mark.parametrize('path', COCO, ids=lambda p: Path(p).stem)
def test_starts_from_imagenet_weights(path):
    backbone = load_config(path).model.backbone
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=f'torchvision://resnet{backbone.depth}')


@pytest.mark.parametrize('path', COCO, ids=lambda p: Path(p).stem)
def test_new_attention_leaves_pretrained_features_alone(path):
    cfg = load_config(path)
    cfg.model.backbone.init_cfg = None
    backbone = build(cfg).backbone
    cfg.model.backbone.plugins = None
    plain = build(cfg).backbone
    kept = {k: v for k, v in backbone.state_dict().items() if '.scsa.' not in k and '.ema.' not in k}
    plain.load_state_dict(kept, strict=True)
    for module in (backbone, plain):
        module.eval()
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        for ours, theirs in zip(backbone(x), plain(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_there_are_configs():
    assert len(COCO) == 9
    assert 'configs/faster_rcnn_r50_scsa_bccd.py' in CONFIGS


def test_an_annotated_point_is_ignored_in_training(tmp_path):
    """BCCD holds two of them; as targets they make the box loss nan."""
    box = (
        '<object><name>RBC</name><bndbox><xmin>{}</xmin><ymin>9</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
    )
    text = '<annotation><size><width>20</width><height>20</height></size>{}</annotation>'
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'ImageSets/Main/train.txt').write_text('a\n')
    (tmp_path / 'Annotations/a.xml').write_text(text.format(box.format(5, 5, 9) + box.format(2, 12, 18)))
    dataset = load_config('configs/faster_rcnn_r50_scsa_bccd.py').train_dataloader.dataset
    dataset.data_root = str(tmp_path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        instances = DATASETS.build(dataset).get_data_info(0)['instances']
    assert [i['ignore_flag'] for i in instances] == [1, 0]
