"""ResNetSCSA and MobileNetV2SCSA: against the released ones, against the hosts, and their weights from host to host."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.registry import MODELS
from mmengine.runner import save_checkpoint
from torch import nn

from scsa_mm.attention import SCSA
from scsa_mm.backbones import MobileNetV2SCSA, ResNetSCSA
from scsa_mm.backbones.released import from_released
from tests.backbones.golden import CASES, FOLDER, arrays, released_state_dict

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-8
TYPES = {'ResNetSCSA': ResNetSCSA, 'MobileNetV2SCSA': MobileNetV2SCSA}
# Counted on the released code at 224x224 by mmengine: parameters and FLOPs without and with SCSA.
TABLE = [
    ('ResNet', {'depth': 18}, 11_176_512, '1.819', 11_207_232, '1.823'),
    pytest.param('ResNet', {'depth': 50}, 23_508_032, '4.109', 23_568_448, '4.119', marks=pytest.mark.slow),
    pytest.param('ResNet', {'depth': 101}, 42_500_160, '7.832', 42_630_208, '7.852', marks=pytest.mark.slow),
    ('MobileNetV2', {}, 2_223_872, '0.3129', 2_338_048, '0.3392'),
]
TINY = dict(depth=50, stem_channels=4, base_channels=4)
PLUGINS = [dict(cfg=dict(type='scsa_mm.SCSA'), stages=(True,) * 4, position='after_conv2')]


def eval_mode(module):
    module.eval()  # MMPretrain's backbones return None here
    return module


@pytest.mark.parametrize('case', CASES, ids=lambda case: Path(case['file']).stem)
def test_equals_the_released_backbone(case):
    data = arrays(case)
    backbone = TYPES[case['module']](**case['kwargs'])
    backbone.load_state_dict(from_released(released_state_dict(case)).state_dict, strict=True)
    assert list(data['x'].shape) == case['input']
    with torch.no_grad():
        maps = eval_mode(backbone.double())(torch.from_numpy(data['x']).double())
    assert len(maps) == sum(name.startswith('y') for name in data)
    for i, found in enumerate(maps):
        np.testing.assert_allclose(found.numpy(), data[f'y{i}'], rtol=0, atol=TOLERANCE, err_msg=f'y{i}')


def test_every_golden_case_is_here():
    assert {c['file'] for c in CASES} == {p.name for p in FOLDER.glob('*.npz')}
    assert len(CASES) == 3


def count(cfg):
    """Parameters, FLOPs, and the multiplications that the released attention spends besides at 224x224."""
    backbone = eval_mode(MODELS.build(cfg))
    spent = []

    def see(attention, args):
        channels, height, width = args[0].shape[1:]
        # It multiplies the attention between channels with the values of all windows, we with their mean.
        spent.append(channels**2 * ((height // 7) * (width // 7) - 1))

    handles = [m.register_forward_pre_hook(see) for m in backbone.modules() if isinstance(m, SCSA)]
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 224, 224))
        for handle in handles:
            handle.remove()
        flops = get_model_complexity_info(backbone, input_shape=(3, 224, 224), show_table=False, show_arch=False)
    return sum(p.numel() for p in backbone.parameters()), flops['flops'], sum(spent)


@pytest.mark.parametrize('name, kwargs, parameters, flops, with_parameters, with_flops', TABLE)
def test_parameters_and_flops_are_those_published(name, kwargs, parameters, flops, with_parameters, with_flops):
    def giga(value):
        return f'{value / 1e9:.{len(flops) - 2}f}'

    bare, bare_flops, _ = count(dict(type=f'mmpretrain.{name}', **kwargs))
    assert (bare, giga(bare_flops)) == (parameters, flops)
    ours, our_flops, saved = count(dict(type=f'scsa_mm.{name}SCSA', **kwargs))
    assert ours == with_parameters
    assert saved > 0
    assert giga(our_flops + saved) == with_flops


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """A classifier of MMPretrain with ResNetSCSA, and its checkpoint."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            _scope_='mmpretrain',
            backbone=dict(type='scsa_mm.ResNetSCSA', out_indices=(0, 1, 2, 3), **TINY),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=128),
        )
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, so that no layer is the identity
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp('classifier') / 'epoch_1.pth'
    save_checkpoint({'state_dict': model.state_dict(), 'meta': {}}, str(path))
    return model, path


HOSTS = {
    'mmdet plugins': dict(type='mmdet.ResNet', _scope_='mmdet', style='pytorch', plugins=PLUGINS, **TINY),
    'mmseg plugins': dict(type='mmseg.ResNet', _scope_='mmseg', plugins=PLUGINS, **TINY),
    'WithPlugins': dict(
        type='scsa_mm.WithPlugins',
        module=dict(type='mmpretrain.ResNet', out_indices=(0, 1, 2, 3), **TINY),
        plugins=[dict(cfg=dict(type='scsa_mm.SCSA'))],
    ),
    'ours in mmdet': dict(type='scsa_mm.ResNetSCSA', _scope_='mmdet', **TINY),
    'ours in mmseg': dict(type='scsa_mm.ResNetSCSA', _scope_='mmseg', **TINY),
}


@pytest.mark.parametrize('host', HOSTS)
def test_weights_of_a_classifier_fit_every_host(classifier, host):
    model, path = classifier
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    cfg = dict(HOSTS[host])
    if 'module' in cfg:
        cfg['module'] = dict(cfg['module'], init_cfg=init_cfg)
    else:
        cfg['init_cfg'] = init_cfg
    backbone = MODELS.build(cfg)
    backbone.init_weights()

    expected = model.backbone.state_dict()
    found = backbone.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    x = torch.randn(2, 3, 100, 70)
    with torch.no_grad():
        for ours, theirs in zip(eval_mode(backbone)(x), eval_mode(model.backbone)(x), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_it_is_the_resnet_of_the_scope(scope):
    backbone = MODELS.build(dict(type='scsa_mm.ResNetSCSA', _scope_=scope, frozen_stages=1, **TINY))
    assert type(backbone).__module__.startswith(f'{scope}.')
    backbone.train()
    frozen = {name.split('.')[0] for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {'conv1', 'bn1', 'layer1'}
    assert not any(p.requires_grad for p in backbone.layer1[0].scsa.parameters())


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', None])
def test_mobilenet_is_that_of_mmpretrain_everywhere(scope):
    backbone = MODELS.build(dict(type='scsa_mm.MobileNetV2SCSA', _scope_=scope, widen_factor=0.25))
    assert type(backbone).__module__ == 'mmpretrain.models.backbones.mobilenet_v2'
    attention = [name for name, m in backbone.named_modules() if isinstance(m, SCSA)]
    assert len(attention) == 17
    assert 'layer2.0.scsa' in attention


@pytest.mark.parametrize(
    'build, host, kwargs',
    [
        # Without zero_init_residual, which leaves the branch with the attention out.
        (ResNetSCSA, 'ResNet', dict(TINY, depth=18, zero_init_residual=False)),
        (ResNetSCSA, 'ResNet', dict(TINY, zero_init_residual=False)),
        (MobileNetV2SCSA, 'MobileNetV2', dict(widen_factor=0.25)),
    ],
    ids=['resnet18', 'resnet50', 'mobilenet_v2'],
)
def test_identity_init_outlives_the_initialisation_of_the_host(build, host, kwargs):
    backbone = build(attention=dict(identity_init=True), **kwargs)
    copy.deepcopy(backbone).init_weights()
    backbone.init_weights()
    bare = MODELS.build(dict(type=f'mmpretrain.{host}', **kwargs))
    bare.load_state_dict({k: v for k, v in backbone.state_dict().items() if '.scsa.' not in k}, strict=True)
    x = torch.randn(1, 3, 96, 80)
    with torch.no_grad():
        torch.testing.assert_close(eval_mode(backbone)(x)[-1], eval_mode(bare)(x)[-1])


def test_options_of_the_attention_reach_every_module():
    backbone = ResNetSCSA(attention=dict(num_heads=4, window_size=5, qkv_bias=True), **TINY)
    modules = [m for m in backbone.modules() if isinstance(m, SCSA)]
    assert len(modules) == 16
    assert all((m.num_heads, m.window_size) == (4, 5) and m.q.bias is not None for m in modules)


def test_it_trains_with_checkpointing():
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='scsa_mm.ResNetSCSA', _scope_='mmdet', with_cp=True, **TINY))
    backbone.train()
    sum(y.sum() for y in backbone(torch.randn(1, 3, 64, 96))).backward()
    assert all(p.grad is not None for p in backbone.layer2.parameters())


@pytest.mark.parametrize(
    'kwargs, error, text',
    [
        (dict(attention='SCSA', **TINY), TypeError, 'attention is a dict of options of SCSA'),
        (dict(attention=dict(type='scsa_mm.EMA'), **TINY), TypeError, 'scsa_mm.WithPlugins puts other'),
        (dict(attention=dict(head_num=1), **TINY), TypeError, "'head_num'"),
        (dict(attention=dict(num_heads=3), **TINY), ValueError, 'num_heads'),
        (dict(scsa_cfg={}, **TINY), TypeError, "'scsa_cfg'"),
    ],
)
def test_wrong_arguments(kwargs, error, text):
    with pytest.raises(error, match=text) as caught:
        ResNetSCSA(**kwargs)
    assert '\n' not in str(caught.value)


MISSING = """
import sys
import scsa_mm.backbones
hosts = ('mmpretrain', 'mmdet', 'mmseg')
assert not any(name.split('.')[0] in hosts for name in sys.modules)

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in hosts:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Missing())
for build in (scsa_mm.backbones.ResNetSCSA, scsa_mm.backbones.MobileNetV2SCSA):
    try:
        build(depth=18)
    except ImportError as error:
        print(error)
"""


def test_a_missing_package_is_named():
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', MISSING], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        'ResNetSCSA is the ResNet of mmpretrain, which is not installed: pip install mmpretrain',
        'MobileNetV2SCSA is the MobileNetV2 of mmpretrain, which is not installed: pip install mmpretrain',
    ], done.stderr
