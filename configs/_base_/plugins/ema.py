# EMA in each bottleneck of a ResNet, where SCSA stands: between the 3x3 and the last 1x1 convolution.
# The paper names no place in a ResNet; this one makes the two comparable.
custom_imports = dict(imports=['scsa_mm'], allow_failed_imports=False)

# groups=32 is the paper's. identity_init: the block starts as it was pretrained.
ema_plugins = [
    dict(
        cfg=dict(type='scsa_mm.EMA', groups=32, identity_init=True),
        stages=(True, True, True, True),
        position='after_conv2',
    )
]
