# PascalVOC: trained on 07+12 trainval, tested on 07 test.
_base_ = ['mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', './_base_/plugins/scsa.py']

model = dict(
    # As in the COCO configs: the stem alone stays frozen, so that all the attention is trained.
    backbone=dict(plugins=_base_.scsa_plugins, frozen_stages=0)
)
