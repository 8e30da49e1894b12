# CIFAR-100, 200 epochs, batch 128 on one GPU, as in the paper. Where in a block EMA stands is not said there; here it
# is behind the last convolution with its norm, where the modules that it is compared with on CIFAR have their place.
_base_ = 'mmpretrain::resnet/resnet50_8xb16_cifar100.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='scsa_mm.WithPlugins',
        module=_base_.model.backbone,
        plugins=[dict(cfg=dict(type='scsa_mm.EMA', groups=32), position='after_conv3')],
    )
)
train_dataloader = dict(batch_size=128)
val_evaluator = dict(topk=(1, 5))
test_evaluator = val_evaluator
