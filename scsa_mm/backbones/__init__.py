"""The backbones of the SCSA paper."""

from .scsa import MobileNetV2SCSA, ResNetSCSA

__all__ = ['MobileNetV2SCSA', 'ResNetSCSA']
