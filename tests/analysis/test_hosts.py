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
