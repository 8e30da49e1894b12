# EMA behind the projection of every block. The paper says neither place nor groups; 8 divides all of these widths.
# Its recipe (timm's, 400 epochs) is not MMPretrain's: this is that of mobilenet_v2_scsa_in1k.py, for comparison.
_base_ = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='scsa_mm.WithPlugins',
        module=_base_.model.backbone,
        plugins=[dict(cfg=dict(type='scsa_mm.EMA', groups=8), position='after_conv3')],
    )
)
train_dataloader = dict(batch_size=96)
train_cfg = dict(max_epochs=400)
auto_scale_lr = dict(base_batch_size=96)
randomness = dict(seed=0)
