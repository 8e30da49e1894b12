"""A small Swin classifier with attention on its tokens and its map, and nothing random: for runs to be compared."""

_base_ = './tiny_classifier.py'

model = dict(
    _delete_=True,
    type='ImageClassifier',
    backbone=dict(
        type='scsa_mm.WithPlugins',
        module=dict(
            type='SwinTransformer',
            arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
            drop_path_rate=0.0,
            pad_small_map=True,
        ),
        plugins=[
            dict(cfg=dict(type='scsa_mm.SCSA'), after='stages.*.blocks.*'),
            dict(cfg=dict(type='scsa_mm.SCSA'), outputs='all'),
        ],
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=128, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)
train_dataloader = dict(
    dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]), drop_last=True
)
train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(lr=0.1))
