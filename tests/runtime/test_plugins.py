"""Plugins that do not exist, or do not fit the backbone."""

import pytest
from mmengine.config import Config

import scsa_mm  # noqa: F401
from scsa_mm.runtime.errors import UserError
from scsa_mm.runtime.plugins import check_plugins


def config(backbone='ResNet', scope='mmdet', type='SCSA', stages=(True,) * 4, position='after_conv2', kw=None, **more):
    plugins = [dict(cfg=dict(type=type, **(kw or {})), stages=stages, position=position)]
    return Config(dict(default_scope=scope, model=dict(backbone=dict(type=backbone, plugins=plugins, **more))))


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('type', ['SCSA', 'scsa_mm.SCSA', 'scsa_mm.EMA', 'ContextBlock'])
def test_what_fits_passes(scope, type):
    kw = dict(ratio=0.25) if type == 'ContextBlock' else {}
    check_plugins(config(scope=scope, type=type, kw=kw, depth=50))


@pytest.mark.parametrize(
    'scope, backbone, more', [('mmdet', 'Res2Net', dict(depth=50)), ('mmseg', 'ResNeXt', dict(depth=50, groups=32))]
)
def test_hosts_that_give_plugins_another_width(scope, backbone, more):
    with pytest.raises(UserError, match=f"{backbone} makes plugins for another .*; position='after_conv3' fits"):
        check_plugins(config(backbone=backbone, scope=scope, **more))
    check_plugins(config(backbone=backbone, scope=scope, position='after_conv3', **more))


def test_nothing_to_check():
    check_plugins(Config(dict(default_scope='mmdet', model=dict(type='RetinaNet', backbone=dict(type='ResNet')))))


@pytest.mark.parametrize(
    'name, near',
    [('SCSAA', 'SCSA'), ('scsa', 'SCSA'), ('scsa_mm.SCAS', 'scsa_mm.SCSA'), ('ContextBlok', 'ContextBlock')],
)
def test_a_misspelt_type_names_near_matches(name, near):
    with pytest.raises(UserError, match=f"no plugin type '{name}' in the scope 'mmdet'.*did you mean .*{near}"):
        check_plugins(config(type=name, depth=50))


def test_a_type_like_no_other():
    with pytest.raises(UserError, match="no plugin type 'Zqxw' in the scope 'mmseg' or above$"):
        check_plugins(config(scope='mmseg', type='Zqxw', depth=50))


def test_a_plugin_without_cfg():
    cfg = Config(dict(default_scope='mmdet', model=dict(backbone=dict(type='ResNet', depth=50, plugins=['SCSA']))))
    with pytest.raises(UserError, match='each plugin is dict'):
        check_plugins(cfg)


@pytest.mark.parametrize(
    'scope, backbone, able',
    [
        ('mmdet', 'SwinTransformer', 'ResNeXt'),
        ('mmseg', 'MixVisionTransformer', 'ResNetV1c'),
        ('mmpretrain', 'ResNet', ''),
    ],
)
def test_a_backbone_that_takes_none_names_those_that_do(scope, backbone, able):
    way_in = rf"scsa_mm.WithPlugins', module=dict\(type='{backbone}'"
    with pytest.raises(
        UserError, match=f'{backbone} takes no plugins of its own; .*{way_in}.*of {scope} that .*{able}'
    ):
        check_plugins(config(backbone=backbone, scope=scope))


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_basic_blocks_take_none(scope):
    with pytest.raises(UserError, match='depth 18 is made of BasicBlock.*scsa_mm.WithPlugins'):
        check_plugins(config(scope=scope, depth=18))


@pytest.mark.parametrize(
    'kw, message',
    [
        (dict(depth=50, kw=dict(num_heads=5)), r'ResNet\): SCSA: .* multiple of num_heads, got 64 and 5'),
        (dict(depth=50, kw=dict(heads=2)), "unexpected keyword argument 'heads'"),
        (dict(depth=50, position='after_conv4'), 'allowed_position'),
        (dict(depth=50, stages=(True, True)), r'len\(stages\) == self.num_stages'),
        (dict(depth=50, base_channels=6), 'in_channels must be a multiple of 4, got 6'),
        (dict(depth=33), '33'),
    ],
    ids=['heads', 'option', 'position', 'stages', 'channels', 'depth'],
)
def test_what_does_not_fit_is_said_in_one_line(kw, message):
    with pytest.raises(UserError, match=message) as caught:
        check_plugins(config(**kw))
    assert '\n' not in str(caught.value)


def wrapped(plugins, scope='mmdet', **module):
    backbone = dict(type='scsa_mm.WithPlugins', module=module, plugins=plugins)
    return Config(dict(default_scope=scope, model=dict(backbone=backbone)))


def test_any_backbone_with_plugins_passes():
    check_plugins(wrapped([dict(cfg=dict(type='SCSA'), stages=(2, 3))], type='ResNet', depth=18))
    check_plugins(wrapped([dict(cfg=dict(type='SCSA'), outputs='all')], 'mmpretrain', type='RepVGG', arch='A0'))


@pytest.mark.parametrize(
    'plugin, message',
    [
        (dict(cfg=dict(type='SCSAA')), "no plugin type 'SCSAA'.*did you mean SCSA"),
        (dict(cfg=dict(type='SCSA'), stages=(2, 5)), r'model.backbone .*there are 4 \(1: layer1, .*got \(2, 5\)'),
        (dict(cfg=dict(type='SCSA', num_heads=5)), r'\(64 channels\): SCSA: .* multiple of num_heads, got 64 and 5'),
        (dict(cfg=dict(type='SCSA', heads=5)), "unexpected keyword argument 'heads'"),
    ],
)
def test_plugins_that_do_not_fit_any_backbone(plugin, message):
    with pytest.raises(UserError, match=message) as caught:
        check_plugins(wrapped([plugin], type='ResNet', depth=18))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'backbone, message',
    [
        (dict(type='scsa_mm.ResNetSCSA', depth=50, attention=dict(heads=2)), "unexpected keyword argument 'heads'"),
        (dict(type='scsa_mm.ResNetSCSA', depth=50, attention='SCSA'), "attention is a dict of options .* got 'SCSA'"),
        (dict(type='scsa_mm.MobileNetV2SCSA', widen=2), "unexpected keyword argument 'widen'"),
    ],
)
def test_the_backbones_of_the_package(backbone, message):
    with pytest.raises(UserError, match=message) as caught:
        check_plugins(Config(dict(default_scope='mmdet', model=dict(backbone=backbone))))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'model, message',
    [
        (dict(type='RetinaNett'), "model: no model type 'RetinaNett' .*did you mean RetinaNet"),
        (dict(backbone=dict(type='ResNett')), "model.backbone: no model type 'ResNett' .*did you mean .*ResNet"),
        (dict(backbone=dict(type='WithPlugins')), "no model type 'WithPlugins' .*did you mean scsa_mm.WithPlugins"),
        (
            dict(backbone=dict(type='scsa_mm.WithPlugins', module=dict(type='Swin'))),
            "backbone.module: no model type 'Swin'",
        ),
    ],
)
def test_a_misspelt_part_of_the_model(model, message):
    with pytest.raises(UserError, match=message):
        check_plugins(Config(dict(default_scope='mmdet', model=model)))


@pytest.mark.parametrize('plugin', [dict(), dict(stages=(2, 3)), dict(after='layer*')])
def test_forms_that_only_with_plugins_takes(plugin):
    plugins = [dict(cfg=dict(type='SCSA'), **plugin)]
    cfg = Config(dict(default_scope='mmdet', model=dict(backbone=dict(type='ResNet', depth=50, plugins=plugins))))
    with pytest.raises(UserError, match="plugins= takes stages as one boolean a stage, .*scsa_mm.WithPlugins'"):
        check_plugins(cfg)
