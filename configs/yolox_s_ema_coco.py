_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py', './_base_/plugins/ema_csp.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='scsa_mm.WithPlugins',
        module=_base_.model.backbone,
        plugins=_base_.ema_csp_plugins,
    )
)
