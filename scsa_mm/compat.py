"""Work-arounds for what the mm packages do wrong, in one place. Each has a test that tells when it can go."""

import importlib.metadata
import pickle
import warnings
from collections.abc import Callable

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
