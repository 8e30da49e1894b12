# EMA behind the last two CSP stages of CSPDarknet, where its authors put it in YOLOv5 (their repository, issue 2).
custom_imports = dict(imports=['scsa_mm'], allow_failed_imports=False)

ema_csp_plugins = [
    dict(cfg=dict(type='scsa_mm.EMA', groups=32), after='stage3'),
    dict(cfg=dict(type='scsa_mm.EMA', groups=32), after='stage4'),
]
