"""Attention starts as it wants to, whatever a host does to its layers, and pretrained weights are kept."""

import pytest
import torch
from torch import nn

from scsa_mm.plugging import inserted
from tests.plugging.building import SMALL, build, resnet, same_outputs, with_plugins


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('init_cfg', [None, dict(type='Kaiming', layer=['Conv1d', 'Conv2d'])], ids=['own', 'one'])
def test_identity_init_survives_the_initialisation_of_the_host(scope, init_cfg, image):
    """Kaiming for every layer, in hosts whose stages are plain containers too."""
    cfg = dict(type='SCSA', identity_init=True)
    model = with_plugins(dict(cfg=cfg), scope=scope, type='ResNet', depth=18, init_cfg=init_cfg, **SMALL)
    model.init_weights()
    for path in inserted(model):
        attention = model.get_submodule(path)
        x = torch.randn(1, attention.norm.num_channels, 9, 8)
        torch.testing.assert_close(attention(x), x)


def test_pretrained_weights_of_the_host_are_still_loaded(tmp_path, image):
    plain = resnet(18)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'))
    cfg = dict(type='scsa_mm.SCSA', identity_init=True)
    model = with_plugins(dict(cfg=cfg), type='ResNet', depth=18, init_cfg=pretrained, **SMALL)
    model.init_weights()
    for ours, theirs in zip(model(image), plain(image), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    'scope, host',
    [
        ('mmdet', dict(type='PyramidVisionTransformer', embed_dims=16, num_heads=[1, 2, 4, 8])),
        ('mmseg', dict(type='MixVisionTransformer', embed_dims=16)),
    ],
)
def test_identity_init_survives_hosts_that_initialise_all_layers_themselves(scope, host):
    cfg = dict(type='SCSA', identity_init=True)
    model = with_plugins(dict(cfg=cfg, outputs='all'), scope=scope, **host)
    model.init_weights()
    for path in inserted(model):
        attention = model.get_submodule(path)
        x = torch.randn(1, attention.norm.num_channels, 9, 8)
        torch.testing.assert_close(attention(x), x)


@pytest.mark.parametrize('convert', [False, True], ids=['plain', 'after SyncBN'])
def test_identity_init_survives_the_initialisation_of_a_parent(convert):
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(
            type='scsa_mm.WithPlugins',
            module=dict(type='TIMMBackbone', model_name='resnet18', features_only=True),
            plugins=[dict(cfg=dict(type='SCSA', identity_init=True), position='after_conv2')],
        ),
        init_cfg=[dict(type='Kaiming', layer=['Conv1d', 'Conv2d']), dict(type='Constant', val=1, layer='GroupNorm')],
    )
    model = build(cfg, 'mmpretrain')
    if convert:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.init_weights()
    assert len(inserted(model)) == 8
    for path in inserted(model):
        attention = model.get_submodule(path)
        x = torch.randn(1, attention.norm.num_channels, 9, 8)
        torch.testing.assert_close(attention(x), x)


def test_pretrained_weights_that_hold_the_attention_are_kept(tmp_path, image):
    cfg = dict(type='scsa_mm.SCSA', identity_init=True)
    trained = with_plugins(dict(cfg=cfg), type='ResNet', depth=18, **SMALL)
    for path in inserted(trained):
        nn.init.normal_(trained.get_submodule(path).v.weight)
    torch.save(trained.state_dict(), tmp_path / 'trained.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'trained.pth'))
    model = with_plugins(dict(cfg=cfg), type='ResNet', depth=18, init_cfg=pretrained, **SMALL)
    model.init_weights()
    assert same_outputs(model, trained, image)
