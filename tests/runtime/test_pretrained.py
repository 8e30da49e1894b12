"""What the log says about pretrained weights."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

import scsa_mm  # noqa: F401
from scsa_mm.runtime.pretrained import describe_pretrained

SMALL = dict(depth=18, base_channels=8, stem_channels=8)


def build(checkpoint=None, prefix=None, plugins=None, scope='mmdet', **more):
    init_cfg = None
    if checkpoint is not None:
        init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
        if prefix is not None:
            init_cfg['prefix'] = prefix
    host = dict(type='ResNet', init_cfg=init_cfg, **{**SMALL, **more})
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(dict(type='scsa_mm.WithPlugins', module=host, plugins=plugins))


@pytest.fixture
def classifier(tmp_path):
    """The weights of a classifier without attention: 120 tensors of ResNet-18 and two of a head."""
    state = {f'backbone.{k}': v for k, v in build(scope='mmpretrain').state_dict().items()}
    state.update({'head.fc.weight': torch.zeros(3, 64), 'head.fc.bias': torch.zeros(3)})
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'classifier.pth')
    return tmp_path / 'classifier.pth'


def test_all_of_it(classifier):
    (line,) = describe_pretrained(build(classifier, 'backbone.'))
    assert line == f'the model: 120 of 120 tensors come from {classifier}'


def test_new_attention(classifier):
    model = torch.nn.Module()
    model.backbone = build(classifier, 'backbone.', [dict(cfg=dict(type='scsa_mm.SCSA'), stages=(3, 4))])
    (line,) = describe_pretrained(model)
    assert line == (
        f'backbone: 120 of 188 tensors come from {classifier}; new: 68 in 4 attention modules, e.g. layer3.0.scsa'
    )


def test_what_has_another_shape_and_what_is_not_used(classifier, tmp_path):
    state = torch.load(classifier)['state_dict']
    flat = tmp_path / 'flat.pth'
    torch.save({k.removeprefix('backbone.').removeprefix('head.'): v for k, v in state.items()}, flat)
    (line,) = describe_pretrained(build(flat, in_channels=1))
    assert line == (
        f'the model: 119 of 120 tensors come from {flat}; '
        'not in it or of another shape: 1, e.g. conv1.weight; not used: 2, e.g. fc.weight'
    )


def test_what_does_not_fit_at_all(classifier):
    (line,) = describe_pretrained(build(classifier))
    assert line.startswith(f'the model: NO tensor of {classifier} has a name and shape of its own; it holds e.g. backb')
    (line,) = describe_pretrained(build(classifier, 'neck.'))
    assert 'of its own below neck.; it holds e.g. backbone.conv1.weight' in line


def test_weights_that_the_model_converts(tmp_path):
    """Published Swin weights have other names and lie under ``model``."""
    torch.save(dict(model={'patch_embed.proj.weight': torch.zeros(1)}), tmp_path / 'swin.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(dict(type='SwinTransformer', embed_dims=16, num_heads=(1, 2, 4, 8), init_cfg=init_cfg))
        model.convert_weights = True
    (line,) = describe_pretrained(model)
    assert line.endswith('swin.pth, whose names it converts itself')
