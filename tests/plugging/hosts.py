"""The backbones and necks of the table in scsa_mm/plugging/HOSTS.md, small, and how attention is asked for in each."""

from dataclasses import dataclass

import torch

HRNET = {
    'stage1': dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,), num_channels=(16,)),
    **{
        f'stage{i}': dict(
            num_modules=1,
            num_branches=i,
            block='BASIC',
            num_blocks=(1,) * i,
            num_channels=tuple(8 * 2**j for j in range(i)),
        )
        for i in (2, 3, 4)
    },
}
BISENET_V1 = dict(
    backbone_cfg=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    spatial_channels=(8, 8, 8, 16),
    context_channels=(16, 32, 64),
    out_channels=32,
)


@dataclass(frozen=True)
class Host:
    """A host by its scope and config; ``pattern`` names modules of it for ``after``."""

    scope: str
    cfg: dict
    pattern: str
    note: str = ''
    sizes: tuple = ((1, 3, 64, 64),)

    @property
    def name(self) -> str:
        return f'{self.scope} {self.cfg["type"]}{self.note}'

    def inputs(self) -> torch.Tensor | tuple:
        torch.manual_seed(1)
        maps = tuple(torch.randn(size) for size in self.sizes)
        return maps[0] if len(maps) == 1 else maps


def maps(*channels: int) -> tuple:
    return tuple((1, c, 32 // 2**i, 48 // 2**i) for i, c in enumerate(channels))


SMALL = dict(base_channels=8, stem_channels=8)
HOSTS = [
    Host('mmdet', dict(type='ResNet', depth=18, **SMALL), 'layer*', '-18'),
    Host('mmdet', dict(type='ResNet', depth=50, **SMALL), 'layer*', '-50'),
    Host('mmdet', dict(type='ResNeXt', depth=50, groups=4, base_width=16, **SMALL), 'layer*'),
    Host(
        'mmdet', dict(type='Res2Net', depth=50, scales=4, base_width=28, stem_channels=16, base_channels=16), 'layer*'
    ),
    Host('mmdet', dict(type='RegNet', arch='regnetx_400mf'), 'layer*'),
    Host('mmdet', dict(type='HRNet', extra=HRNET), 'stage*.*.branches.*'),
    Host('mmdet', dict(type='SwinTransformer', embed_dims=16, num_heads=(1, 2, 4, 8)), 'stages.*.blocks.*'),
    Host('mmdet', dict(type='PyramidVisionTransformer', embed_dims=16, num_heads=[1, 2, 4, 8]), 'layers.*.1.*'),
    Host('mmdet', dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.25), 'stage*'),
    Host('mmdet', dict(type='CSPNeXt', deepen_factor=0.167, widen_factor=0.25), 'stage*'),
    Host('mmdet', dict(type='MobileNetV2', widen_factor=0.5), 'layer*'),
    Host(
        'mmdet',
        dict(type='FPN', in_channels=[8, 16, 32], out_channels=16, num_outs=4),
        'fpn_convs.*',
        '',
        maps(8, 16, 32),
    ),
    Host(
        'mmdet',
        dict(type='PAFPN', in_channels=[8, 16, 32], out_channels=16, num_outs=3),
        'pafpn_convs.*',
        '',
        maps(8, 16, 32),
    ),
    Host(
        'mmdet', dict(type='YOLOXPAFPN', in_channels=[16, 32, 64], out_channels=16), 'out_convs.*', '', maps(16, 32, 64)
    ),
    Host('mmseg', dict(type='ResNetV1c', depth=50, **SMALL), 'layer*'),
    Host('mmseg', dict(type='MixVisionTransformer', embed_dims=16), 'layers.*.1.*'),
    Host('mmseg', dict(type='UNet', base_channels=8), 'encoder.*'),
    Host(
        'mmseg',
        dict(
            type='mmpretrain.ConvNeXt',
            arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
            out_indices=(0, 1, 2, 3),
            gap_before_final_norm=False,
        ),
        'stages.*.*',
    ),
    Host('mmseg', dict(type='BiSeNetV1', **BISENET_V1), 'spatial_path'),
    Host('mmseg', dict(type='BiSeNetV2'), 'detail'),
    Host('mmpretrain', dict(type='ResNet', depth=50, **SMALL), 'layer*'),
    Host('mmpretrain', dict(type='ResNet_CIFAR', depth=18, **SMALL), 'layer*'),
    Host('mmpretrain', dict(type='MobileNetV2', widen_factor=0.5), 'layer*'),
    Host('mmpretrain', dict(type='MobileNetV3', arch='small_050'), 'layer*'),
    Host('mmpretrain', dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])), 'stages.*'),
    Host(
        'mmpretrain',
        dict(
            type='SwinTransformer',
            arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
            pad_small_map=True,
        ),
        'stages.*.blocks.*',
    ),
    Host('mmpretrain', dict(type='EfficientNet', arch='b0'), 'layers.*.*'),
    Host('mmpretrain', dict(type='RepVGG', arch='A0'), 'stage_*.*'),
    Host('mmpretrain', dict(type='VisionTransformer', arch='deit-tiny', img_size=64), 'layers.*', ' (class token)'),
    Host(
        'mmpretrain',
        dict(type='VisionTransformer', arch='deit-tiny', img_size=64, out_type='featmap'),
        'layers.*',
        ' (featmap)',
    ),
    Host(
        'mmpretrain',
        dict(type='TIMMBackbone', model_name='resnet18', features_only=True, zero_init_last=False),
        'timm_model.layer*',
        ' resnet18',
    ),
    Host(
        'mmpretrain',
        dict(
            type='TIMMBackbone',
            model_name='swin_tiny_patch4_window7_224',
            features_only=True,
            img_size=64,
            embed_dim=24,
            num_heads=(1, 2, 4, 8),
        ),
        'timm_model.layers_*.blocks.*',
        ' swin',
    ),
    Host(
        'mmdet',
        dict(type='mmpretrain.TIMMBackbone', model_name='efficientnet_b0', features_only=True),
        'timm_model.blocks.*.*',
        ' efficientnet_b0',
    ),
]
WAYS = {
    'position': lambda host: {},
    'after': lambda host: dict(after=host.pattern),
    'outputs': lambda host: dict(outputs='all'),
}
