"""Names of the released checkpoints: to ours, back, and what is refused."""

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

from scsa_mm.backbones import MobileNetV2SCSA, ResNetSCSA
from scsa_mm.backbones.released import convert_checkpoint, from_released, to_released
from tests.backbones.golden import CASES, case, released_state_dict

RESNET = case('ResNetSCSA', 18)
BOTTLENECK = case('ResNetSCSA', 50)
MOBILENET = case('MobileNetV2SCSA')


def same(one, two):
    """Equal names in the same order, and the very same tensors."""
    return list(one) == list(two) and all(one[name] is two[name] for name in one)


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.', 'module.student.backbone.'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: Path(case['file']).stem)
def test_there_and_back_is_exact(case, prefix):
    head = {'head.fc.weight': torch.ones(3, 5), 'steps': torch.tensor(7), 'note': 'text'}
    released = released_state_dict(case, prefix) | head
    before = dict(released)
    there = from_released(released)
    back = to_released(there.state_dict)
    assert same(back.state_dict, before)
    assert same(released, before)
    assert list(there.state_dict.values()) == list(before.values())
    assert there.outside == back.outside == tuple(head)
    counts = [(c.modules, c.renamed, c.renumbered, c.kept) for c in (there, back)]
    assert counts[0] == counts[1]
    assert sum(counts[0][1:]) + len(head) == len(released)


@pytest.mark.parametrize(
    'case, modules, renamed, renumbered', [(RESNET, 8, 136, 0), (BOTTLENECK, 16, 272, 0), (MOBILENET, 17, 289, 102)]
)
def test_counts(case, modules, renamed, renumbered):
    found = from_released(released_state_dict(case))
    assert (found.modules, found.renamed, found.renumbered, found.outside) == (modules, renamed, renumbered, ())


def test_names():
    resnet = from_released(released_state_dict(RESNET)).state_dict
    assert 'layer1.0.scsa.norm_h.weight' in resnet
    assert not [name for name in resnet if '.attn' in name]
    released = released_state_dict(MOBILENET)
    ours = from_released(released).state_dict
    # The first block has no expansion, so everything in it has a number less.
    assert ours['layer1.0.scsa.v.weight'] is released['layer1.0.conv.1.v.weight']
    assert ours['layer1.0.conv.1.conv.weight'] is released['layer1.0.conv.2.conv.weight']
    assert ours['layer2.0.scsa.v.weight'] is released['layer2.0.conv.2.v.weight']
    assert ours['layer2.0.conv.2.bn.bias'] is released['layer2.0.conv.3.bn.bias']


@pytest.mark.parametrize(
    'build, kwargs, attention',
    [
        (ResNetSCSA, dict(depth=18, base_channels=4, stem_channels=4), 'layer1.0.attn'),
        (ResNetSCSA, dict(depth=18, base_channels=4, stem_channels=4, attention=dict(qkv_bias=True)), 'layer1.0.attn'),
        (MobileNetV2SCSA, dict(widen_factor=0.25), 'layer1.0.conv.1'),
    ],
)
def test_our_own_weights_there_and_back(build, kwargs, attention):
    ours = build(**kwargs).state_dict()
    released = to_released(ours).state_dict
    assert f'{attention}.q.weight' in released
    assert type(released) is OrderedDict
    # Versions of the modules stand under their paths.
    assert released._metadata[f'{attention}.q'] == {'version': 1}
    back = from_released(released).state_dict
    assert same(back, ours)
    assert list(back._metadata.items()) == list(ours._metadata.items())


def test_weights_of_a_whole_detector():
    plugin = dict(cfg=dict(type='scsa_mm.SCSA'), stages=(True,) * 4, position='after_conv2')
    backbone = MODELS.build(dict(type='mmdet.ResNet', depth=50, base_channels=4, stem_channels=4, plugins=[plugin]))
    weights = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    weights['neck.lateral_convs.0.conv.weight'] = torch.ones(4, 16, 1, 1)
    found = to_released(weights)
    assert found.outside == ('neck.lateral_convs.0.conv.weight',)
    assert {n.removeprefix('backbone.') for n in found.state_dict if n.startswith('backbone.')} == {
        *released_state_dict(BOTTLENECK)
    }


def without(weights, *names):
    return {name: value for name, value in weights.items() if name not in names}


def renamed(weights, old, new):
    return {name.replace(old, new): value for name, value in weights.items()}


def resnet():
    return released_state_dict(RESNET)


def mobilenet():
    return released_state_dict(MOBILENET)


def ours(weights):
    return from_released(weights).state_dict


BAD_RELEASED = {
    'ours already': (lambda: ours(resnet()), 'layer1.0.scsa has the name that scsa_mm gives it already; use --reverse'),
    'our MobileNetV2 already': (lambda: ours(mobilenet()), 'layer1.0.scsa has the name that scsa_mm gives it already'),
    'both sides': (lambda: resnet() | ours(resnet()), 'layer1.0.scsa has the name that scsa_mm gives it already'),
    'no attention': (lambda: {'conv1.weight': torch.ones(1)}, 'holds no SCSA attention; it holds e.g. conv1.weight'),
    'nothing': (dict, 'holds no SCSA attention; it holds e.g. no names at all'),
    'lost a norm': (
        lambda: without(resnet(), 'layer2.1.attn.norm.bias'),
        'layer2.1.attn is no whole SCSA: it lacks norm.bias',
    ),
    'lost its convolutions': (
        lambda: {n: v for n, v in resnet().items() if 'layer1.0.attn' not in n or '_dwc' not in n},
        'layer1.0.attn is no whole SCSA: it lacks global_dwc_l.bias',
    ),
    'half a qkv bias': (
        lambda: resnet() | {'layer1.0.attn.q.bias': torch.ones(4)},
        'layer1.0.attn is no whole SCSA: it lacks k.bias, v.bias',
    ),
    'recombination': (
        lambda: resnet() | {'layer1.0.attn.conv_d.weight': torch.ones(4, 196, 1, 1)},
        'layer1.0.attn is no whole SCSA: it has besides conv_d.weight',
    ),
    'lost a module': (
        lambda: {n: v for n, v in resnet().items() if not n.startswith('layer3.1.attn')},
        'SCSA in every block, and there is none in layer3.1',
    ),
    'lost a module of MobileNetV2': (
        lambda: {n: v for n, v in mobilenet().items() if not n.startswith('layer1.0.conv.1.')},
        'SCSA in every block, and there is none in layer1.0',
    ),
    'lost the projections': (
        lambda: {n: v for n, v in mobilenet().items() if not n.startswith('layer2.0.conv.3.')},
        'layer2.0.conv.2 looks like SCSA and cannot be placed',
    ),
    'behind the last convolution': (
        lambda: renamed(renamed(mobilenet(), 'layer2.0.conv.2.', 'x.'), 'x.', 'layer2.0.conv.4.'),
        'layer2.0.conv.4 looks like SCSA and cannot be placed',
    ),
    'in a neck': (
        lambda: resnet() | renamed(resnet(), 'layer1.0.attn', 'neck.attn'),
        'neck.attn looks like SCSA and cannot be placed',
    ),
    'averaged by mmcv': (
        lambda: resnet() | {'ema_layer1_0_attn_local_dwc_weight': torch.ones(1)},
        'ema_layer1_0_attn looks like SCSA and cannot be placed',
    ),
    'another width': (
        lambda: resnet() | {'layer1.0.conv2.weight': torch.ones(4, 5, 3, 3)},
        'it has 4 channels, and layer1.0.conv2 behind it takes 5',
    ),
    'a block without convolutions': (
        lambda: {n: v for n, v in resnet().items() if 'layer1.0.conv' not in n},
        'layer1.0 has SCSA and is no block of ResNet',
    ),
    'not a tensor': (lambda: resnet() | {'layer1.0.attn.norm.weight': 1}, 'it has no channels'),
}


@pytest.mark.parametrize('name', BAD_RELEASED)
def test_refused(name):
    weights, text = BAD_RELEASED[name]
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        from_released(weights())
    assert '\n' not in str(caught.value)


BAD_OURS = {
    'released already': (resnet, 'layer1.0.attn has the name that the released code gives it already; leave --reverse'),
    'released MobileNetV2': (mobilenet, 'layer1.0.conv.1 has the name that the released code gives it already'),
    'some stages only': (
        lambda: {n: v for n, v in ours(resnet()).items() if not n.startswith('layer1.') or 'scsa' not in n},
        'SCSA in every block, and there is none in layer1.0, layer1.1',
    ),
    'two of them': (
        lambda: ours(resnet()) | renamed(ours(resnet()), 'scsa.', 'scsa_2.'),
        'layer1.0.scsa_2 looks like SCSA and cannot be placed',
    ),
    'SMSA': (lambda: renamed(ours(resnet()), 'scsa.', 'smsa.'), 'layer1.0.smsa looks like SCSA and cannot be placed'),
}


@pytest.mark.parametrize('name', BAD_OURS)
def test_refused_in_reverse(name):
    weights, text = BAD_OURS[name]
    with pytest.raises(ValueError, match=re.escape(text)):
        to_released(weights())


def test_a_plugin_behind_the_last_convolution_is_refused():
    plugin = dict(cfg=dict(type='scsa_mm.SCSA'), stages=(True,) * 4, position='after_conv3')
    backbone = MODELS.build(dict(type='mmdet.ResNet', depth=50, base_channels=4, stem_channels=4, plugins=[plugin]))
    with pytest.raises(ValueError, match='layer1.0.scsa .* has 16 channels, and layer1.0.conv3 behind it takes 4'):
        to_released(backbone.state_dict())


def test_a_mobilenet_of_mmdet_is_refused():
    backbone = MODELS.build(
        dict(
            type='scsa_mm.WithPlugins',
            module=dict(type='mmdet.MobileNetV2', widen_factor=0.25),
            plugins=[dict(cfg=dict(type='scsa_mm.SCSA'))],
        )
    )
    with pytest.raises(ValueError, match='layer1.0 has SCSA and is no block of ResNet .* or MobileNetV2'):
        to_released(backbone.state_dict())


def test_checkpoint_of_mmengine():
    weights = released_state_dict(RESNET, 'backbone.')
    averaged = released_state_dict(RESNET, 'module.backbone.') | {'steps': torch.tensor(3)}
    meta, hub = {'cfg': 'model = dict()', 'epoch': 3}, object()
    checkpoint = {
        'meta': meta,
        'state_dict': weights,
        'message_hub': hub,
        'optimizer': {'state': {0: 1}},
        'ema_state_dict': averaged,
    }
    converted, lines = convert_checkpoint(checkpoint)
    assert list(converted) == ['meta', 'state_dict', 'message_hub', 'ema_state_dict']
    assert converted['meta'] is meta and converted['message_hub'] is hub
    assert 'module.backbone.layer1.0.scsa.q.weight' in converted['ema_state_dict']
    assert 'optimizer' in checkpoint
    assert [line for line in lines if line.startswith('left out: optimizer')]
    assert 'kept as they are: meta, message_hub' in lines
    assert 'ema_state_dict: 1 outside the backbone kept: steps' in lines

    back, lines = convert_checkpoint(converted, reverse=True)
    assert same(back['state_dict'], weights) and same(back['ema_state_dict'], averaged)
    assert not [line for line in lines if line.startswith('left out')]


def test_averaged_weights_are_checked_too():
    checkpoint = {'state_dict': resnet(), 'ema_state_dict': without(resnet(), 'layer1.0.attn.q.weight')}
    with pytest.raises(ValueError, match='its ema_state_dict: layer1.0.attn is no whole SCSA'):
        convert_checkpoint(checkpoint)
    with pytest.raises(ValueError, match='its state_dict is a list'):
        convert_checkpoint({'state_dict': []})


def test_identity_init_has_no_counterpart():
    checkpoint = {'state_dict': ours(resnet()), 'meta': {'cfg': 'attention=dict(\n  identity_init=True)'}}
    with pytest.raises(ValueError, match='trained with identity_init=True'):
        convert_checkpoint(checkpoint, reverse=True)
    checkpoint['meta']['cfg'] = 'identity_init=False'
    convert_checkpoint(checkpoint, reverse=True)
