"""Small hosts, with and without attention."""

import torch
from mmengine.registry import MODELS, DefaultScope

SCSA_CFG = dict(type='scsa_mm.SCSA')
SMALL = dict(base_channels=8, stem_channels=8)


def build(cfg, scope='mmdet'):
    with DefaultScope.overwrite_default_scope(scope):
        torch.manual_seed(0)
        model = MODELS.build(cfg)
    model.eval()
    return model


def resnet(depth=50, **kwargs):
    return build(dict(type='ResNet', depth=depth, **SMALL, **kwargs))


def with_plugins(*plugins, scope='mmdet', **module):
    return build(dict(type='scsa_mm.WithPlugins', module=module, plugins=list(plugins)), scope)


def same_outputs(first, second, image):
    return all(torch.equal(a, b) for a, b in zip(first(image), second(image), strict=True))
