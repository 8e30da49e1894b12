"""An mmseg config, small, with attention in its ResNetV1c, on images that the environment names."""

_base_ = ['mmseg::_base_/models/fcn_r50-d8.py', 'mmseg::_base_/default_runtime.py']

custom_imports = dict(imports=['scsa_mm'], allow_failed_imports=False)
norm_cfg = dict(type='SyncBN', requires_grad=True)  # as in most configs of mmseg
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        base_channels=4,
        stem_channels=8,
        norm_cfg=norm_cfg,
        plugins=[dict(cfg=dict(type='SCSA'), stages=(True, True, True, True), position='after_conv2')],
    ),
    decode_head=dict(in_channels=128, channels=8, num_classes=2, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=64, channels=8, num_classes=2, norm_cfg=norm_cfg),
)
dataset = dict(
    type='BaseSegDataset',
    data_root='{{$SEGMENTATION:data}}',
    data_prefix=dict(img_path='images', seg_map_path='labels'),
    img_suffix='.png',
    metainfo=dict(classes=('left', 'right'), palette=[[255, 0, 0], [0, 0, 255]]),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **dataset,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
    visualization=dict(type='SegVisualizationHook'),
)
randomness = dict(seed=0)
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
