"""The COCO config, made small enough to train in seconds, on a miniature set that the environment names."""

_base_ = '../../configs/mask_rcnn_r50_scsa_coco.py'

data_root = '{{$MINIATURE_COCO:data/miniature_coco}}/'
classes = ('circle', 'square', 'triangle', 'star')
neck_channels = 8
model = dict(
    backbone=dict(
        base_channels=4,
        init_cfg=None,
        norm_eval=False,
        norm_cfg=dict(requires_grad=True),
        frozen_stages=-1,
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=neck_channels),
    rpn_head=dict(in_channels=neck_channels, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=neck_channels),
        bbox_head=dict(in_channels=neck_channels, fc_out_channels=16, num_classes=len(classes)),
        mask_roi_extractor=dict(out_channels=neck_channels),
        mask_head=dict(in_channels=neck_channels, conv_out_channels=8, num_convs=1, num_classes=len(classes)),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=50, max_per_img=20), rcnn=dict(sampler=dict(num=16)), rpn=dict(sampler=dict(num=16))
    ),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20)),
)
scale = (160, 128)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, pipeline=train_pipeline, filter_cfg=dict(filter_empty_gt=True, min_size=1)),
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3))
param_scheduler = []
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=1))
