# Faster R-CNN with SCSA on a folder of one's own in PascalVOC's format; as it stands, BCCD (blood cells).
# For other data copy this file and change the three values below.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    './_base_/datasets/voc_folder.py',
    './_base_/plugins/scsa.py',
]

data_root = 'data/BCCD'
classes = ('RBC', 'WBC', 'Platelets')
test_list = 'ImageSets/Main/test.txt'

dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dict(**dataset, ann_file=test_list))

model = dict(
    backbone=dict(plugins=_base_.scsa_plugins, frozen_stages=0),
    roi_head=dict(bbox_head=dict(num_classes=len(classes))),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
