# VisDrone2019-DET for MMDetection's pipelines. Tested on val, as papers do.
_base_ = ['mmdet::_base_/datasets/coco_detection.py', './visdrone_source.py']

train_dataloader = dict(
    dataset=dict(
        **_base_.visdrone_data,
        ann_file='coco/train.json',
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
    )
)
val_dataloader = dict(dataset=dict(**_base_.visdrone_data, ann_file='coco/val.json'))
test_dataloader = val_dataloader
val_evaluator = _base_.visdrone_evaluator
test_evaluator = val_evaluator
