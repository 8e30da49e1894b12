"""The scope ``scsa_mm``: child registries of mmengine's, and what is visible without the scope.

mmengine imports ``scsa_mm.registry`` by itself when a config says ``type='scsa_mm.SCSA'``, so that form needs no
``custom_imports``. The short form ``type='SCSA'`` needs ``custom_imports = dict(imports=['scsa_mm'])``.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

__all__ = ['DATASETS', 'HOOKS', 'METRICS', 'MODELS', 'attention_names', 'register_attention']

SCOPE = 'scsa_mm'


def _child(parent: Registry, *locations: str) -> Registry:
    """The registry below ``parent`` for this scope; the one that is there when this file runs a second time."""
    existing = parent.children.get(SCOPE)
    if existing is not None:
        return existing
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


MODELS = _child(MMENGINE_MODELS, 'scsa_mm.attention', 'scsa_mm.backbones', 'scsa_mm.plugging')
DATASETS = _child(MMENGINE_DATASETS, 'scsa_mm.datasets.cifar')
HOOKS = _child(MMENGINE_HOOKS, 'scsa_mm.hooks')
METRICS = _child(MMENGINE_METRICS, 'scsa_mm.evaluation')


def attention_names() -> list[str]:
    """The attention modules of this scope; what else it holds are functions that build models."""
    return sorted(name for name, cls in MODELS.module_dict.items() if isinstance(cls, type))


def register_attention(in_root: bool):
    """Class decorator: register under the scope, and with ``in_root`` under the bare name for every scope.

    Only names that no other package uses may be bare: mmyolo has a CBAM, mmengine an EMAHook.

    Raises:
        KeyError: if another class already has the name in the registry.
    """

    def register(cls: type) -> type:
        for registry in (MODELS, MMENGINE_MODELS) if in_root else (MODELS,):
            known = registry.module_dict.get(cls.__name__)
            # A reloaded module defines the same class anew: that is no conflict.
            same = known is not None and (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
            registry.register_module(module=cls, force=same)
        return cls

    return register
