"""ResNet and MobileNetV2 with SCSA where the paper has it: the backbones of the mm packages with attention put in.

Paper: SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention,
https://arxiv.org/abs/2407.05128. Both types build the package's own class and return it, so frozen stages,
checkpointing, deformable convolutions and the names of all parameters are those of the host.
"""

import importlib

from mmengine.registry import DefaultScope
from torch import nn

from ..plugging import add_plugins
from ..registry import MODELS

RESNET_HOSTS = ('mmdet', 'mmpretrain', 'mmseg')


# Functions under the names of types, as with WithPlugins: there is no class of ours around the host.
@MODELS.register_module()
def ResNetSCSA(attention: dict | None = None, **host: object) -> nn.Module:
    """ResNet with SCSA in every residual block, before its last convolution.

    It is the ResNet of the scope in use: MMDetection's or MMSegmentation's in their configs, with the arguments that
    their users know (``dcn``, ``with_cp``, ``norm_eval=True`` by default), else MMPretrain's, as in the paper. Their
    parameters have the same names; ``_scope_='mmpretrain'`` in the config chooses another package.

    Args:
        attention: Options of :class:`~scsa_mm.attention.SCSA`, such as ``dict(identity_init=True)``; without it the
            paper's: one head, window 7, kernels 3, 5, 7, 9.
        **host: Arguments of the package's ResNet: ``depth``, ``out_indices``, ``frozen_stages``, ``init_cfg`` ...

    Shape:
        (B, 3, H, W) -> tuple of maps, one for each of ``out_indices``.

    Cost:
        16 C parameters a block for C channels there: 30,720 in ResNet-18, 60,416 in ResNet-50, 130,048 in ResNet-101.

    Raises:
        ImportError: if the package is not installed.
        TypeError: if ``attention`` is no dict of options of SCSA, or the ResNet does not know an argument.
        ValueError: if SCSA refuses an option.
    """
    scope = DefaultScope.get_current_instance()
    package = scope.scope_name if scope is not None and scope.scope_name in RESNET_HOSTS else 'mmpretrain'
    return _with_scsa(_host_class('ResNetSCSA', package, 'ResNet')(**host), attention)


@MODELS.register_module()
def MobileNetV2SCSA(attention: dict | None = None, **host: object) -> nn.Module:
    """MobileNetV2 with SCSA in every block, between the depthwise convolution and the linear projection.

    It is MMPretrain's MobileNetV2 in every scope: MMDetection's names its parameters otherwise, and MMSegmentation's
    has other strides and no last convolution, so weights of a classifier would not fit them.

    Args:
        attention: Options of :class:`~scsa_mm.attention.SCSA`, as for :func:`ResNetSCSA`.
        **host: Arguments of MMPretrain's MobileNetV2: ``widen_factor``, ``out_indices`` (0 to 7) ...

    Shape:
        (B, 3, H, W) -> tuple of maps, one for each of ``out_indices``.

    Cost:
        16 C parameters a block for C expanded channels: 114,176 with ``widen_factor=1``.

    Raises:
        ImportError: if MMPretrain is not installed.
        TypeError: if ``attention`` is no dict of options of SCSA, or MobileNetV2 does not know an argument.
        ValueError: if SCSA refuses an option.
    """
    return _with_scsa(_host_class('MobileNetV2SCSA', 'mmpretrain', 'MobileNetV2')(**host), attention)


def _host_class(name: str, package: str, host: str) -> type[nn.Module]:
    try:
        return getattr(importlib.import_module(f'{package}.models.backbones'), host)
    except ModuleNotFoundError as error:
        if error.name != package:  # something that an installed package wants
            raise
        raise ImportError(
            f'{name} is the {host} of {package}, which is not installed: pip install {package}'
        ) from error


def _with_scsa(backbone: nn.Module, attention: dict | None) -> nn.Module:
    if attention is not None and not isinstance(attention, dict):
        raise TypeError(f'attention is a dict of options of SCSA, such as dict(num_heads=1), got {attention!r}')
    if 'type' in (attention or {}):
        raise TypeError(
            f'attention holds options of SCSA and no type, got {attention["type"]!r}; scsa_mm.WithPlugins puts other '
            'attention into a backbone'
        )
    return add_plugins(backbone, [dict(cfg=dict(attention or {}, type='scsa_mm.SCSA'))])
