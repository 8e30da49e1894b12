"""The demo's config, small enough to train in seconds, on a miniature set that the environment names."""

_base_ = '../../configs/demo/mask_rcnn_r50_scsa_shapes.py'

data_root = '{{$MINIATURE_COCO:data/miniature_coco}}/'
channels = 8
head = dict(in_channels=channels)
dataset = dict(data_root=data_root)
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(**head, fc_out_channels=16),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(**head, conv_out_channels=channels, num_convs=1),
    ),
)
train_dataloader = dict(
    batch_size=2,
    # One more transform, as all that is random must be resumed.
    dataset=dict(
        **dataset,
        pipeline=[*_base_.train_pipeline[:-1], dict(type='PhotoMetricDistortion'), dict(type='PackDetInputs')],
    ),
)
val_dataloader = dict(batch_size=1, dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = []
default_hooks = dict(logger=dict(interval=1))
