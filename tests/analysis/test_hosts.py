"""What is measured in a module or a config."""

import pytest
import torch

from scsa_mm.analysis.candidates import parse_candidates
from scsa_mm.analysis.hosts import in_model, model_of, one_module, parse_module
from scsa_mm.runtime.config import load_config
from scsa_mm.runtime.errors import UserError

RESNET = dict(type='mmdet.ResNet', depth=18, base_channels=8)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def host(cfg, place=None, scope='mmengine'):
    return in_model('host', cfg, scope, place or {}, 2, (64, 96))


def test_a_module_is_written_as_a_call():
    assert parse_module('mmdet.ResNet(depth=50, out_indices=(1, 2))') == dict(
        type='mmdet.ResNet', depth=50, out_indices=(1, 2)
    )
    for text in ('mmdet.ResNet(50)', 'mmdet.ResNet(depth=x)', 'mmdet.ResNet(**{})', 'mmdet.ResNet(', 'a(1)(b=2)('):
        with pytest.raises(UserError, match='a module is written as'):
            parse_module(text)


def test_one_module_has_a_copy_as_baseline():
    alone = one_module((1, 8, 3, 4))
    none, scsa = (alone.build(c) for c in parse_candidates(['none', 'SCSA']))
    out = none(alone.x)
    assert torch.equal(out, alone.x) and out.data_ptr() != alone.x.data_ptr()
    assert scsa(alone.x).shape == alone.x.shape
    with pytest.raises(UserError, match='--shape is N C H W'):
        one_module((1, 0, 3, 4))


def test_attention_in_a_backbone():
    backbone = host(RESNET)
    assert backbone.measured == 'the module itself'
    assert backbone.x.shape == (2, 3, 64, 96)
    none, all_stages = (backbone.build(c) for c in parse_candidates(['none', 'SE:reduction=2']))
    # Before the last convolution of two blocks a stage, with 8, 16, 32 and 64 channels.
    assert parameters(all_stages) - parameters(none) == 2 * sum(2 * c * c // 2 for c in (8, 16, 32, 64))
    last = host(RESNET, dict(stages=[4], position='after_conv2')).build(parse_candidates(['SE:reduction=2'])[0])
    assert parameters(last) - parameters(none) == 2 * 2 * 64 * 32


def test_as_much_of_a_model_as_runs(monkeypatch):
    monkeypatch.setenv('CLASSIFICATION', 'data')
    classifier = load_config('tests/data/tiny_classifier.py')
    whole = host(classifier.model, scope='mmpretrain')
    assert whole.measured.startswith('the whole model')
    assert whole.build(parse_candidates(['none'])[0])(whole.x).shape == (2, 2)  # two images, two classes

    detector = load_config('tests/data/tiny_mask_rcnn.py', {'model.backbone.plugins': None})
    part = host(detector.model, scope='mmdet')
    assert part.measured.startswith('its backbone and neck')
    assert len(part.build(parse_candidates(['ECA'])[0])(part.x)) == 5


def step_of(config, monkeypatch, size=(64, 96), **options):
    monkeypatch.setenv('SEGMENTATION', 'data')
    cfg = load_config(config, {'model.backbone.plugins': None, **options})
    return in_model('host', cfg.model, cfg.default_scope, {}, 2, size, whole_step=True)


def test_whole_step_of_a_detector(monkeypatch):
    whole = step_of('tests/data/tiny_mask_rcnn.py', monkeypatch)
    none, again, scsa = (whole.build(c) for c in [*parse_candidates(['none']), *parse_candidates(['none', 'SCSA'])])
    assert whole.whole_step and none.samples is not again.samples
    first, second = (m.samples[0].gt_instances for m in (none, again))
    assert torch.equal(first.bboxes, second.bboxes) and len(first) == 8
    x1, y1, x2, y2 = first.bboxes.unbind(1)
    assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 > x1).all() and (x2 <= 96).all() and (y2 <= 64).all()
    assert (first.masks.masks.sum((1, 2)) > 0).all()
    host_weights = none.model.state_dict()
    assert all(torch.equal(value, scsa.model.state_dict()[name]) for name, value in host_weights.items())

    loss = none.train()(whole.x)
    assert loss.ndim == 0 and loss.isfinite()
    loss.backward()
    with torch.no_grad():
        predicted = none.eval()(whole.x)
    assert len(predicted) == 2 and 'pred_instances' in predicted[0]


def test_whole_step_of_a_segmentor(monkeypatch):
    whole = step_of('tests/data/tiny_fcn.py', monkeypatch, (32, 48), **{'model.pretrained': 'never loaded'})
    module = whole.build(parse_candidates(['none'])[0])  # SyncBN, which works on GPUs only
    assert module.samples[1].gt_sem_seg.data.shape == (1, 32, 48)
    loss = module.train()(whole.x)
    assert loss.ndim == 0 and loss.isfinite()
    with torch.no_grad():
        predicted = module.eval()(whole.x)
    assert predicted[0].pred_sem_seg.data.shape == (1, 32, 48)


def test_refused():
    with pytest.raises(UserError, match=r'host has plugins already.*--cfg-options model.backbone.plugins=None'):
        host(load_config('tests/data/tiny_mask_rcnn.py').model, scope='mmdet')
    with pytest.raises(UserError, match='host has plugins already.*; leave them out'):
        host(dict(RESNET, plugins=[dict()]))
    with pytest.raises(UserError, match=r'host cannot be built: .*mmdet.ResNot'):
        host(dict(type='mmdet.ResNot'))
    with pytest.raises(UserError, match='host cannot be built: .*99'):
        host(dict(type='mmdet.ResNet', depth=99))
    with pytest.raises(UserError, match=r'host cannot be run on \(1, 3, 64, 96\)'):
        host(dict(type='mmdet.FPN', in_channels=[3, 3], out_channels=4, num_outs=2))
    with pytest.raises(UserError, match='has no model.backbone'):
        model_of(load_config('mmdet::_base_/default_runtime.py'), 'x')
