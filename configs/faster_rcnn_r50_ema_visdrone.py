_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    './_base_/datasets/visdrone.py',
    './_base_/plugins/ema.py',
]

model = dict(
    # As in the COCO configs: the stem alone stays frozen, so that all the attention is trained.
    backbone=dict(plugins=_base_.ema_plugins, frozen_stages=0),
    roi_head=dict(bbox_head=dict(num_classes=10)),
    # Images hold several hundred objects.
    test_cfg=dict(rcnn=dict(max_per_img=500)),
)
