_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    './_base_/datasets/exdark.py',
    './_base_/plugins/scsa.py',
]

model = dict(
    # As in the COCO configs: the stem alone stays frozen, so that all the attention is trained.
    backbone=dict(plugins=_base_.scsa_plugins, frozen_stages=0),
    bbox_head=dict(num_classes=12),
)
# As the installed RetinaNet configs.
optim_wrapper = dict(optimizer=dict(lr=0.01))
