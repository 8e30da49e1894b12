_base_ = [
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
    './_base_/plugins/ema_csp.py',
    './_base_/datasets/visdrone_source.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='scsa_mm.WithPlugins',
        module=_base_.model.backbone,
        plugins=_base_.ema_csp_plugins,
    ),
    bbox_head=dict(num_classes=10),
)
train_dataloader = dict(dataset=dict(dataset=dict(**_base_.visdrone_data, ann_file='coco/train.json')))
val_dataloader = dict(dataset=dict(**_base_.visdrone_data, ann_file='coco/val.json'))
test_dataloader = val_dataloader
val_evaluator = _base_.visdrone_evaluator
test_evaluator = val_evaluator
