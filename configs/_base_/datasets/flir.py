# FLIR-ADAS v2, thermal, converted by tools/dataset_converters/flir_to_coco.py with these classes. Tested on val, as
# papers do; coco/test.json holds the video frames. Grey pictures are read as three equal channels.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

data_root = 'data/FLIR_ADAS_v2/'
classes = ('person', 'bike', 'car')
metainfo = dict(classes=classes)
# The names in the json files are relative to data_root.
dataset = dict(data_root=data_root, metainfo=metainfo, data_prefix=dict(img=''))
train_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file='coco/train.json',
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
    )
)
val_dataloader = dict(dataset=dict(**dataset, ann_file='coco/val.json'))
test_dataloader = dict(dataset=dict(**dataset, ann_file='coco/val.json'))
val_evaluator = dict(ann_file=data_root + 'coco/val.json')
test_evaluator = dict(ann_file=data_root + 'coco/val.json')
