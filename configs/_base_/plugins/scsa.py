# SCSA where the paper has it in a ResNet: in each bottleneck, between the 3x3 and the last 1x1 convolution.
custom_imports = dict(imports=['scsa_mm'], allow_failed_imports=False)

# identity_init: the block starts as it was pretrained, and the attention is learned from there.
# Weights of a classifier with SCSA were trained without it: set it to False to start from those.
scsa_plugins = [
    dict(
        cfg=dict(type='SCSA', identity_init=True),
        stages=(True, True, True, True),
        position='after_conv2',
    )
]
