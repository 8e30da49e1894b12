"""A classifier trained with our config starts Mask R-CNN and UPerNet with the same features."""

import re

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from scsa_mm.runtime.config import load_config
from scsa_mm.runtime.pretrained import describe_pretrained
from tests.configs.miniatures import options_of, run
from tests.conftest import ROOT


def backbone_of(cfg, **changes):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        host = cfg.model.backbone.get('module', cfg.model.backbone)
        host.update(changes)
        return MODELS.build(cfg.model.backbone)


@pytest.fixture(scope='module')
def classifier(root, tmp_path_factory):
    """A checkpoint of ResNet-50 with SCSA after some steps on the miniature ImageNet."""
    work_dir = tmp_path_factory.mktemp('classifier')
    config = ROOT / 'configs/resnet50_scsa_in1k.py'
    options = [*options_of(load_config(str(config))), 'train_cfg.max_epochs=2', 'optim_wrapper.optimizer.lr=0.01']
    run(root, ROOT / 'tools/train.py', config, '--work-dir', work_dir, '--cfg-options', *options)
    return work_dir / 'epoch_2.pth'


@pytest.mark.parametrize('name', ['mask_rcnn_r50_scsa_coco', 'upernet_r50_scsa_ade20k'])
def test_a_classifier_starts_it_bit_for_bit(classifier, name):
    state = torch.load(classifier, weights_only=True)['state_dict']
    trained = backbone_of(load_config('configs/resnet50_scsa_in1k.py'), out_indices=(0, 1, 2, 3))
    trained.load_state_dict({k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')})

    # As configs/README.md says, through --cfg-options.
    options = {
        'model.backbone.init_cfg.checkpoint': str(classifier),
        'model.backbone.init_cfg.prefix': 'backbone.',
        'model.backbone.plugins.0.cfg.identity_init': False,
    }
    cfg = load_config(f'configs/{name}.py', options)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
    (line,) = describe_pretrained(model)
    assert re.match(r'backbone: (\d+) of \1 tensors come from ', line) and 'new' not in line and 'not used' not in line

    for module in (trained, model.backbone):
        module.eval()
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        for ours, theirs in zip(model.backbone(x), trained(x), strict=True):
            assert torch.equal(ours, theirs)
