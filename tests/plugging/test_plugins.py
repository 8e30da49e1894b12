"""What add_plugins promises about places, names and errors."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import scsa_mm
from scsa_mm.attention import EMA, SCSA
from scsa_mm.plugging import inserted, plan_plugins
from scsa_mm.plugging.places import Place
from scsa_mm.plugging.trial import Trial
from tests.plugging.building import SCSA_CFG, SMALL, build, resnet, same_outputs, with_plugins


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
@pytest.mark.parametrize('stages', [(True, True, True, True), (False, True, False, True)], ids=['all', 'two'])
def test_equals_the_plugins_of_the_host(scope, position, stages, image):
    plugin = dict(cfg=SCSA_CFG, stages=stages, position=position)
    host = dict(type='ResNet', depth=50, **SMALL)
    own = build(dict(host, plugins=[plugin]), scope)
    ours = with_plugins(plugin, scope=scope, **host)
    assert own.state_dict().keys() == ours.state_dict().keys()
    ours.load_state_dict(own.state_dict(), strict=True)
    assert same_outputs(own, ours, image)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('wrapped', [False, True], ids=['plugins=', 'WithPlugins'])
def test_two_plugins_at_one_position_both_act_in_order(scope, wrapped, image):
    plugins = [
        dict(cfg=dict(type='scsa_mm.EMA', groups=4), stages=(True,) * 4, position='after_conv2'),
        dict(cfg=SCSA_CFG, stages=(True,) * 4, position='after_conv2'),
    ]
    host = dict(type='ResNet', depth=50, **SMALL)
    model = with_plugins(*plugins, scope=scope, **host) if wrapped else build(dict(host, plugins=plugins), scope)
    calls = []
    for name, module in model.named_modules():
        if isinstance(module, (EMA, SCSA)):
            module.register_forward_hook(lambda m, args, y, name=name: calls.append((name, args[0], y)))
    model(image)
    names = [name.rpartition('.')[2] for name, _, _ in calls]
    assert names == ['ema', 'scsa'] * 16
    for (_, _, given), (_, taken, _) in zip(calls[::2], calls[1::2], strict=True):
        assert torch.equal(given, taken)


def test_basic_block_by_hand(image):
    """The paper's place in a BasicBlock: after the first convolution with its norm and ReLU."""
    model = scsa_mm.add_plugins(resnet(18), [dict(cfg=SCSA_CFG, stages=(4,))])
    block = model.layer4[1]
    x = torch.randn(1, 64, 6, 5)
    y = block.relu(block.norm1(block.conv1(x)))
    y = block.relu(block.norm2(block.conv2.forward(block.scsa(y))) + x)
    assert torch.equal(block(x), y)
    assert not hasattr(model.layer3[1], 'scsa')


def test_inverted_residual_by_hand():
    """The paper's place in MobileNetV2: between the depthwise convolution and the projection."""
    model = with_plugins(dict(cfg=SCSA_CFG), scope='mmpretrain', type='MobileNetV2', widen_factor=0.5)
    block = model.layer2[1]
    x = torch.randn(1, block.conv[0].in_channels, 6, 5)
    expand, depthwise, project = block.conv
    assert torch.equal(block(x), x + project.forward(block.scsa(depthwise(expand(x)))))
    assert hasattr(model.layer1[0], 'scsa')  # the one block without an expansion


@pytest.mark.parametrize('when', ['before', 'after'])
def test_channels_last_and_tokens_by_hand(when):
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 8)

        def forward(self, x, hw_shape=None):
            return self.body(x)

    class Host(nn.Module):
        def __init__(self, tokens):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, stride=4)
            self.layer = Layer()
            self.tokens = tokens

        def forward(self, x):
            x = self.stem(x)
            size = tuple(x.shape[2:])
            if self.tokens:
                return self.layer(x.flatten(2).transpose(1, 2), size).transpose(1, 2).unflatten(2, size)
            return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    for tokens, layout in ((True, 'NLC'), (False, 'NHWC')):
        torch.manual_seed(0)
        host = Host(tokens)
        plugin = {'cfg': SCSA_CFG, when: 'layer'}
        assert plan_plugins(host, [plugin])[0].flow.layout == layout
        scsa_mm.add_plugins(host, [plugin])
        attention = getattr(host, f'scsa_{when}_layer')
        x = torch.randn(2, 3, 20, 36)
        y = host.stem(x)
        if when == 'before':
            y = attention(y)
        y = host.layer.body(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if when == 'after':
            y = attention(y)
        torch.testing.assert_close(host(x), y)


def test_outputs_of_a_part_of_a_detector(image):
    cfg = dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=16, num_outs=5)
    model = nn.Module()
    model.backbone, model.neck = resnet(), build(cfg)
    model.forward = None  # the parts are run, not the whole
    plain = model.neck(model.backbone(image))
    scsa_mm.add_plugins(model, [dict(cfg=SCSA_CFG, after='neck', outputs=(1, 4))])
    assert {k: str(v) for k, v in inserted(model).items()} == {
        'scsa_after_neck_1': 'after output 1 of neck',
        'scsa_after_neck_4': 'after output 4 of neck',
    }
    maps = model.neck(model.backbone(image))
    for i, (ours, theirs) in enumerate(zip(maps, plain, strict=True)):
        expected = getattr(model, f'scsa_after_neck_{i}')(theirs) if i in (1, 4) else theirs
        assert torch.equal(ours, expected)


def test_stages_by_number_and_by_boolean_are_the_same():
    by_number = plan_plugins(resnet(), [dict(cfg=SCSA_CFG, stages=(2, 4))])
    by_boolean = plan_plugins(resnet(), [dict(cfg=SCSA_CFG, stages=(False, True, False, True))])
    assert [i.path for i in by_number] == [i.path for i in by_boolean]
    assert {i.path.split('.')[0] for i in by_number} == {'layer2', 'layer4'}


def test_the_backbone_of_a_whole_detector():
    with DefaultScope.overwrite_default_scope('mmdet'):
        from scsa_mm.runtime.config import load_config

        cfg = load_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
        model = MODELS.build(dict(type='scsa_mm.WithPlugins', module=cfg.model, plugins=[dict(cfg=SCSA_CFG)]))
    assert list(inserted(model))[:2] == ['backbone.layer1.0.scsa', 'backbone.layer1.1.scsa']
    # Heads that the trial run reaches, and RoI heads that state their channels.
    found = plan_plugins(model, [dict(cfg=SCSA_CFG, after='bbox_head.cls_convs.*')])
    assert [i.path for i in found] == [f'bbox_head.scsa_after_cls_convs_{i}' for i in range(4)]
    assert all(i.flow.in_channels == 256 for i in found)


def test_a_layer_that_no_trial_run_reaches_states_its_channels():
    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.never = nn.Conv2d(8, 12, 3, padding=1)
            self.body = nn.ReLU()

        def forward(self, first, second):
            return self.never(first + second)

    for when, channels in (('before', 8), ('after', 12)):
        host = scsa_mm.add_plugins(Host(), [{'cfg': SCSA_CFG, when: 'never'}])
        x = torch.randn(1, 8, 5, 6)
        attention = getattr(host, f'scsa_{when}_never')
        assert attention.norm.num_channels == channels
        inner = nn.functional.conv2d(
            attention(x + x) if when == 'before' else x + x, *host.never.parameters(), padding=1
        )
        assert torch.equal(host(x, x), inner if when == 'before' else attention(inner))
    with pytest.raises(ValueError, match='body: not reached in a trial run .*and ReLU does not say how many channels'):
        scsa_mm.add_plugins(Host(), [dict(cfg=SCSA_CFG, after='body')])


def test_the_dtype_device_and_mode_of_the_host():
    model = scsa_mm.add_plugins(resnet().double(), [dict(cfg=SCSA_CFG)])
    assert all(p.dtype == torch.float64 for p in model.parameters())
    assert not model.layer1[0].scsa.training


def test_a_plugin_of_mmcv():
    model = with_plugins(dict(cfg=dict(type='ContextBlock', ratio=0.5), stages=(3,)), type='ResNet', depth=18, **SMALL)
    assert {k: str(v) for k, v in inserted(model).items()} == {
        'layer3.0.context_block': 'before layer3.0.conv2',
        'layer3.1.context_block': 'before layer3.1.conv2',
    }


def test_a_frozen_stage_is_told(caplog):
    with caplog.at_level('WARNING', logger='mmengine'):
        model = resnet(frozen_stages=1)
        from mmengine.logging import MMLogger

        logger = MMLogger.get_current_instance()
        logger.addHandler(caplog.handler)
        try:
            scsa_mm.add_plugins(model, [dict(cfg=SCSA_CFG)])
        finally:
            logger.removeHandler(caplog.handler)
    assert '3 of 16 inserted modules are frozen by ResNet and stay as they start, e.g. layer1.0.scsa' in caplog.text
    assert not model.training
    model.train()
    frozen = {n for n, p in model.named_parameters() if '.scsa.' in n and not p.requires_grad}
    assert frozen and all(n.startswith('layer1.') for n in frozen)


class Windows(nn.Module):
    """What resembles tokens or maps and is none."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.windows, self.pooled, self.twice, self.text = (nn.Identity() for _ in range(4))
        self.square = nn.Identity()

    def forward(self, x):
        x = self.stem(x)
        self.windows(x.reshape(-1, 16, 16))
        self.twice(x), self.twice(x[:, :8])
        self.square(torch.zeros(1, 16, 16, 16))
        self.text('x')
        return self.pooled(x.mean((2, 3)))


@pytest.mark.parametrize(
    'plugin, message',
    [
        (dict(after='windows'), r'windows: \(320, 16, 16\) or .* nor the tokens'),
        (dict(after='pooled'), r'pooled: \(1, 16\), depending on the image, is neither a map'),
        (dict(before='twice'), r'before twice: it is called 2 times with different channels \(8, 16\)'),
        (dict(after='square'), r'square: \(1, 16, 16, 16\), depending on the image, is neither'),
        (dict(after='text'), 'text: str, depending on the image, is neither'),
    ],
    ids=['windows', 'vector', 'two widths', 'ambiguous', 'no tensor'],
)
def test_what_no_attention_can_take(plugin, message):
    with pytest.raises(ValueError, match=message):
        scsa_mm.add_plugins(Windows(), [dict(cfg=SCSA_CFG, **plugin)])


@pytest.mark.parametrize(
    'plugins, message',
    [
        ([dict(cfg=SCSA_CFG, after='layer9')], "after='layer9' names no module of ResNet .* layer1"),
        ([dict(cfg=SCSA_CFG, before='**xyz**')], r"before='\*\*xyz\*\*' names no module .*there are conv1, bn1"),
        ([dict(cfg=SCSA_CFG, stages=(5,))], r'there are 4 \(1: layer1, 2: layer2, 3: layer3, 4: layer4\); got \(5,\)'),
        ([dict(cfg=SCSA_CFG, stages=(True, True))], r'there are 4 .*; got \(True, True\)'),
        ([dict(cfg=SCSA_CFG, stages=2)], 'stages is a tuple .*; got 2'),
        ([dict(cfg=SCSA_CFG, stages=())], r'stages is a tuple .*; got \(\)'),
        (
            [dict(cfg=SCSA_CFG, position='after_conv3')],
            r"block layer1.0 \(BasicBlock\) has 'after_conv1', 'after_conv2'",
        ),
        (
            [dict(cfg=SCSA_CFG, outputs=(0, 4))],
            r"outputs=\(0, 4\): the whole module gives 4 output\(s\); say 'all' or a tuple of 0, 1",
        ),
        ([dict(cfg=SCSA_CFG)] * 2, "before layer1.0.conv2: layer1.0 has a plugin 'scsa' already; .*postfix"),
        (
            [dict(cfg=dict(type='scsa_mm.EMA', groups=32))],
            r'conv2 \(8 channels\): EMA: .* choose groups from \[1, 2, 4, 8\]',
        ),
        ([dict(cfg=SCSA_CFG, stages=(False,) * 4)], r'there are 4 .*; got \(False, False, False, False\)'),
        ([dict(cfg=SCSA_CFG, outputs=(True, False))], r'outputs=\(True, False\): the whole module gives 4'),
        ([dict(cfg=SCSA_CFG, outputs=-1)], 'outputs=-1: the whole module gives 4'),
        ([dict(cfg=SCSA_CFG, outputs=())], r'outputs=\(\): the whole module gives 4'),
        ([dict(cfg=dict(SCSA_CFG, in_channels=7))], 'in_channels are found by the host; leave them out'),
        ([dict(cfg=SCSA_CFG, after='layer1', stages=(1,))], 'with one of: stages.*; got after, stages'),
        ([dict(cfg=SCSA_CFG, before='layer1', after='layer1')], 'with one of: .*; got after, before'),
        ([dict(cfg=SCSA_CFG, before='layer1', outputs='all')], 'with one of: .*; got before, outputs'),
        ([dict(cfg=SCSA_CFG, place='layer1')], 'with one of: .*; got place'),
        ([dict(cfg=SCSA_CFG, after='')], "after='' names no module"),
    ],
)
def test_what_does_not_exist_lists_what_does(plugins, message):
    model = resnet(18)
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        scsa_mm.add_plugins(model, plugins)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize('plugins', [dict(cfg=SCSA_CFG), ['SCSA'], [dict(type='SCSA')], 'SCSA', [dict(cfg='SCSA')]])
def test_what_is_no_plugin(plugins):
    with pytest.raises(TypeError, match='a plugin is dict'):
        scsa_mm.add_plugins(resnet(18), plugins)


def test_the_same_plugin_again():
    model = scsa_mm.add_plugins(resnet(18), [dict(cfg=SCSA_CFG)])
    with pytest.raises(ValueError, match="layer1.0 has a plugin 'scsa' already"):
        scsa_mm.add_plugins(model, [dict(cfg=SCSA_CFG)])
    scsa_mm.add_plugins(model, [dict(cfg=dict(SCSA_CFG, postfix='_2'))])
    assert {name.rpartition('.')[2] for name in inserted(model)} == {'scsa', 'scsa_2'}


def test_a_list_of_modules_is_no_place():
    model = with_plugins(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]))
    with pytest.raises(ValueError, match=r'stages is a list of modules, not a layer; name its entries: stages\.\*'):
        scsa_mm.add_plugins(model, [dict(cfg=SCSA_CFG, after='stages')])


def test_a_bare_sequential_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    with pytest.raises(ValueError, match=r'every module above it is a container \(Sequential\)'):
        scsa_mm.add_plugins(model, [dict(cfg=SCSA_CFG, after='1')])


def test_pre_activation_blocks():
    """timm's ResNetV2 has a norm before each convolution: after the last one there is none."""
    import timm

    model = timm.create_model('resnetv2_50', num_classes=0)
    found = plan_plugins(model, [dict(cfg=SCSA_CFG, position='after_conv3')])
    assert str(found[0].place) == 'after stages.0.blocks.0.conv3'
    assert found[0].flow.in_channels == 256


def test_stages_in_one_sequential():
    import timm

    model = timm.create_model('efficientnet_b0', num_classes=0)
    found = plan_plugins(model, [dict(cfg=SCSA_CFG, stages=(1, 3))])
    assert [i.owner for i in found] == ['blocks.0.0', 'blocks.2.0', 'blocks.2.1']


@pytest.mark.parametrize('head', ['RetinaHead', 'RPNHead'])
def test_dense_heads(head):
    cfg = dict(type=head, in_channels=16, feat_channels=16)
    if head == 'RetinaHead':
        cfg.update(num_classes=3, stacked_convs=2)
    pattern = 'cls_convs.*' if head == 'RetinaHead' else 'rpn_conv'
    found = plan_plugins(build(cfg), [dict(cfg=SCSA_CFG, after=pattern)])
    assert all(i.flow.in_channels == 16 and len(i.flow.shape) == 4 for i in found)


@pytest.mark.parametrize('plugin', [dict(after='decode_head'), dict(after='decode_head', outputs='all')])
def test_what_mmseg_calls_past_every_hook(plugin):
    from scsa_mm.runtime.config import load_config

    cfg = load_config('tests/data/tiny_fcn.py').model
    cfg.backbone.plugins = None
    model = build(cfg, 'mmseg')
    with pytest.raises(ValueError, match='around a decode head of mmseg would never act; .* decode_head.conv_seg'):
        scsa_mm.add_plugins(model, [dict(cfg=SCSA_CFG, **plugin)])
    scsa_mm.add_plugins(model, [dict(cfg=dict(type='scsa_mm.ECA'), before='decode_head.conv_seg')])


def test_what_a_model_writes_into_the_config_of_its_part():
    """mmseg's EncoderDecoder sets ``pretrained`` of its backbone, mmdet's detectors ``train_cfg`` of their heads."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        cfg = dict(
            type='scsa_mm.WithPlugins', module=dict(type='ResNet', depth=18, **SMALL), plugins=[dict(cfg=SCSA_CFG)]
        )
        model = MODELS.build(dict(cfg, frozen_stages=1))
    assert model.frozen_stages == 1
    with pytest.raises(TypeError, match='that is built takes no depth'):
        scsa_mm.plugging.plugins.build_with_plugins(model, [], depth=3)


def test_the_host_is_left_as_it_was():
    model = resnet(frozen_stages=1)
    model.train()
    model.layer2.eval()
    for p in model.layer1.parameters():
        p.requires_grad_(True)
    modes = {n: m.training for n, m in model.named_modules()}
    gradients = {n: p.requires_grad for n, p in model.named_parameters()}
    state = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    Trial(model, ['layer1', 'layer4']).flow(Place('layer4', 'after'))
    assert torch.equal(random, torch.get_rng_state())
    scsa_mm.add_plugins(model, [dict(cfg=SCSA_CFG)])
    assert {n: m.training for n, m in model.named_modules() if n in modes} == modes
    assert {n: p.requires_grad for n, p in model.named_parameters() if n in gradients} == gradients
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())


def test_attention_that_is_there_is_not_matched():
    model = scsa_mm.add_plugins(resnet(18), [dict(cfg=SCSA_CFG)])
    found = plan_plugins(model, [dict(cfg=dict(type='scsa_mm.SE', reduction=2), after='layer4.0.**')])
    assert found and not [i for i in found if 'scsa' in i.place.target]


def test_half_precision():
    swin = dict(type='SwinTransformer', embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
    model = scsa_mm.add_plugins(build(swin).half(), [dict(cfg=SCSA_CFG, outputs='all')])
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_a_replaced_layer_is_followed(image):
    model = scsa_mm.add_plugins(resnet(18), [dict(cfg=SCSA_CFG)])
    expected = model(image)
    for stage in (model.layer1, model.layer4):
        stage[0].conv2 = copy.deepcopy(stage[0].conv2)
        stage[0].conv2._forward_pre_hooks.clear()
    for ours, theirs in zip(model(image), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_an_owner_that_runs_all_its_children_is_refused():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            for layer in self.children():
                x = layer(x)
            return x

    model = Chain()
    with pytest.raises(ValueError, match='after first: the attention is called 2 times where it should be 1: Chain'):
        scsa_mm.add_plugins(model, [dict(cfg=dict(type='scsa_mm.ECA'), after='first')])
    assert list(model._modules) == ['first', 'second']
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
