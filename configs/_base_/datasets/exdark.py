# ExDark, converted by tools/dataset_converters/exdark_to_coco.py, with the splits of its imageclasslist.txt.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

data_root = 'data/ExDark/'
classes = ('Bicycle', 'Boat', 'Bottle', 'Bus', 'Car', 'Cat', 'Chair', 'Cup', 'Dog', 'Motorbike', 'People', 'Table')
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
test_dataloader = dict(dataset=dict(**dataset, ann_file='coco/test.json'))
val_evaluator = dict(ann_file=data_root + 'coco/val.json')
test_evaluator = dict(ann_file=data_root + 'coco/test.json')
