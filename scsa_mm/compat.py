"""Work-arounds for what the mm packages do wrong, in one place. Each has a test that tells when it can go."""

import importlib.metadata
import importlib.util
import pickle
import sys
import warnings
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType

import numpy as np
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import HistoryBuffer


def _statistics_method(owner: type, name: str) -> Callable:
    """What ``getattr`` may do in a checkpoint: name a statistic of a HistoryBuffer, and nothing else."""
    if owner is not HistoryBuffer or name not in HistoryBuffer._statistics_methods:
        raise pickle.UnpicklingError(f'Unsupported global: getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)``, the default from torch 2.6, read what mmengine saves.

    mmengine 0.10.7 checkpoints hold the message hub: HistoryBuffer objects, with numpy arrays and scalars and
    references to their own methods. Declaring these few safe keeps the protection that ``weights_only=False`` gives
    up. Older torch does not ask.
    """
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        return
    HistoryBuffer()  # registers the statistics that a checkpoint may name
    core = np._core if hasattr(np, '_core') else np.core
    numeric = [type(np.dtype(t)) for t in ('f8', 'f4', 'i8', 'i4', 'u1', '?')]
    types = (HistoryBuffer, np.ndarray, np.dtype, *numeric)
    # All with their names: OneDL's mmengine withdraws the bare types after its own loading.
    torch.serialization.add_safe_globals(
        [
            (_statistics_method, 'builtins.getattr'),
            *((t, f'{t.__module__}.{t.__qualname__}') for t in types),
            # numpy 2 writes numpy._core, numpy 1 numpy.core; each reads the other's files.
            *(
                (getattr(core.multiarray, name), f'numpy.{module}.multiarray.{name}')
                for module in ('core', '_core')
                for name in ('_reconstruct', 'scalar')
            ),
        ]
    )


def silence_pkg_resources() -> None:
    """Hide the warning that mmengine 0.10.7 causes for each ``_base_ = 'mmdet::...'`` by importing pkg_resources."""
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')


def find_mmseg_of_onedl() -> None:
    """Let OneDL's mmengine find ``_base_ = 'mmseg::...'``: it looks for a distribution named mmsegmentation."""
    try:
        importlib.metadata.distribution('mmsegmentation')
    except importlib.metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


MMSEG_RESNET = 'mmseg.models.backbones.resnet'


def chain_mmseg_plugins() -> None:
    """Let all plugins at one position of an mmseg ResNet act, in order.

    ``forward_plugin`` of mmseg 1.2.2 (and of OneDL's 1.4.2) gives each plugin the original input and keeps what the
    last one makes of it. mmseg is not imported for this: its class is mended when somebody imports it.
    """
    if MMSEG_RESNET in sys.modules:
        _mend_forward_plugin(sys.modules[MMSEG_RESNET])
    elif not any(isinstance(finder, _MmsegResNetFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MmsegResNetFinder())


def _mend_forward_plugin(resnet: ModuleType) -> None:
    def forward_plugin(self, x, plugin_names):
        for name in plugin_names:
            x = getattr(self, name)(x)
        return x

    resnet.Bottleneck.forward_plugin = forward_plugin


class _MmsegResNetFinder(MetaPathFinder):
    """Finds the module as ever, and mends it once it was executed."""

    def find_spec(self, name, path=None, target=None):
        if name != MMSEG_RESNET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            _mend_forward_plugin(module)

        spec.loader.exec_module = exec_module
        return spec
