_base_ = ['mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py', './_base_/plugins/scsa.py']

model = dict(
    # The installed config has ResNetV1c with a deep stem. Backbones trained with resnet50_scsa_in1k.py have the plain
    # stem of MMPretrain's ResNet, and so has this one.
    pretrained=None,
    backbone=dict(
        type='ResNet',
        plugins=_base_.scsa_plugins,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
)
