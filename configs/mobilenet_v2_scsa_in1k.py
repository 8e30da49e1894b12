# The published recipe: one GPU, batch 96, 400 epochs, --amp. After the depthwise convolution of every block.
_base_ = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='scsa_mm.WithPlugins',
        module=_base_.model.backbone,
        plugins=[dict(cfg=dict(type='scsa_mm.SCSA'), position='after_conv2')],
    )
)
train_dataloader = dict(batch_size=96)
train_cfg = dict(max_epochs=400)
auto_scale_lr = dict(base_batch_size=96)
randomness = dict(seed=0)
