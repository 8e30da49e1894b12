# The demo: Mask R-CNN R50 with SCSA, from scratch, on drawn shapes, in minutes on two cores. `make demo` runs it.
# What makes it small is said here; the rest is the installed config. For real data start from
# configs/mask_rcnn_r50_scsa_coco.py instead.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['scsa_mm'], allow_failed_imports=False)

# What people change first
data_root = 'data/miniature_coco/'
work_dir = 'work_dirs/demo'
classes = ('circle', 'square', 'triangle', 'star')
scale = (160, 128)  # width and height in pixels, as they were drawn
batch_size = 4
max_epochs = 5
lr = 5e-4
plugins = [dict(cfg=dict(type='SCSA'), stages=(True, True, True, True), position='after_conv2')]

# Small images: pyramid, proposals and heads cost more than the backbone, and smaller ones are enough.
# Few steps: BatchNorm outside the backbone too, and boxes and masks that all the classes learn together.
channels = 128
head = dict(in_channels=channels, num_classes=len(classes))
model = dict(
    backbone=dict(
        plugins=plugins,
        # From scratch everything is trained, the statistics of BatchNorm too.
        init_cfg=None,
        frozen_stages=-1,
        norm_eval=False,
    ),
    neck=dict(out_channels=channels, norm_cfg=dict(type='BN')),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4]),  # boxes from 16 pixels on
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(**head, fc_out_channels=256, reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(**head, conv_out_channels=channels, num_convs=2, class_agnostic=True, norm_cfg=dict(type='BN')),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(max_per_img=20),
    ),
)

# Data; num_workers=0 leaves both cores to the model
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
loader = dict(batch_size=batch_size, num_workers=0, persistent_workers=False)
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(**loader, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

# Schedule; held-out images are evaluated after each epoch
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=lr, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, T_max=max_epochs, end=max_epochs, convert_to_iter_based=True),
]
randomness = dict(seed=0)
default_hooks = dict(
    logger=dict(interval=10),
    # mmengine removes the oldest checkpoint before it writes the next: with one only, a kill could leave none.
    checkpoint=dict(max_keep_ckpts=3),
)
