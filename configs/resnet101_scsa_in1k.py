# The published recipe: one GPU, batch 128, 100 epochs, --amp, dropout in the attention.
_base_ = 'mmpretrain::resnet/resnet101_8xb32_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='scsa_mm.WithPlugins',
        module=_base_.model.backbone,
        plugins=[dict(cfg=dict(type='scsa_mm.SCSA', attn_drop=0.1), position='after_conv2')],
    )
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=0.05))
auto_scale_lr = dict(base_batch_size=128)
randomness = dict(seed=0)
