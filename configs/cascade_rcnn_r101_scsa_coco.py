_base_ = ['mmdet::cascade_rcnn/cascade-rcnn_r101_fpn_1x_coco.py', './_base_/plugins/scsa.py']

model = dict(
    backbone=dict(
        plugins=_base_.scsa_plugins,
        # The installed config freezes stage 1, with the new attention in it; here the stem alone stays frozen.
        frozen_stages=0,
    )
)
