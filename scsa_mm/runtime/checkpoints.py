"""Checkpoints as a tool meets them: missing, cut off, of another model, nothing to resume."""

import os.path as osp
import pickle
from pathlib import Path

import torch
from mmengine.runner import find_latest_checkpoint
from torch import nn

from .errors import UserError


def is_local(path: str) -> bool:
    """Whether ``path`` is a file name and not something that mmengine downloads."""
    return '://' not in path


def read_checkpoint(path: str) -> dict:
    """Load a local checkpoint on the CPU, as torch does by default (from torch 2.6 with ``weights_only=True``).

    Raises:
        UserError: if it is not there, cut off, or holds more than weights and plain values.
    """
    if not osp.isfile(path):
        raise UserError(f'checkpoint {path} does not exist')
    try:
        checkpoint = torch.load(path, map_location='cpu')
    except pickle.UnpicklingError as error:
        if 'Unsupported global' in str(error):
            raise UserError(
                f'checkpoint {path} holds objects that could run code, so it is not loaded; save its weights alone '
                'with torch.save({"state_dict": model.state_dict()}, ...) where you trust it'
            ) from error
        raise _damaged(path) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'checkpoint {path} holds a {type(checkpoint).__name__}, not a dict of weights')
    return checkpoint


def _damaged(path: str) -> UserError:
    return UserError(f'checkpoint {path} is cut off or no checkpoint ({osp.getsize(path):,} bytes)')


def _weights(checkpoint: dict) -> dict[str, torch.Tensor]:
    weights = checkpoint.get('state_dict', checkpoint)
    return {k.removeprefix('module.'): v for k, v in weights.items() if isinstance(v, torch.Tensor)}


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DDP or test-time augmentation."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    return model


def check_some_fit(model: nn.Module, checkpoint: dict, path: str) -> None:
    """Raise UserError if not one parameter of the model is in the checkpoint: a start from it would be from scratch."""
    weights = _weights(checkpoint)
    if not any(n in weights and weights[n].shape == p.shape for n, p in _unwrapped(model).named_parameters()):
        example = next(iter(weights), 'no tensor at all')
        raise UserError(f'load_from: no parameter of this model is in {path}; it holds e.g. {example}')


def check_fits(model: nn.Module, checkpoint: dict, path: str) -> None:
    """Raise UserError unless the checkpoint has every parameter of the model, in its shape.

    mmengine only warns, and then evaluates random weights.
    """
    weights = _weights(checkpoint)
    wanted = {name: p.shape for name, p in _unwrapped(model).named_parameters()}
    absent = [n for n in wanted if n not in weights]
    reshaped = [n for n, shape in wanted.items() if n in weights and weights[n].shape != shape]
    if not absent and not reshaped:
        return
    example = (
        f'{absent[0]} is not in it'
        if absent
        else f'{reshaped[0]} is {tuple(weights[reshaped[0]].shape)} in it and {tuple(wanted[reshaped[0]])} here'
    )
    raise UserError(
        f'checkpoint {path} is of another model: {len(absent) + len(reshaped)} of {len(wanted)} parameters do not '
        f'fit, e.g. {example}; use the config that it was trained with'
    )


def check_nothing_overwritten(work_dir: str) -> None:
    """Raise UserError if a new run would write over the checkpoints of an earlier one."""
    found = sorted(p.name for p in Path(work_dir).glob('*.pth'))
    if found:
        raise UserError(
            f'{work_dir} holds {len(found)} checkpoint(s) of an earlier run, e.g. {found[-1]}; --resume goes on with '
            'it, another --work-dir keeps it'
        )


def find_resume(work_dir: str, resume: str) -> str:
    """The checkpoint that ``--resume`` (``'auto'``) or ``--resume PATH`` means.

    Raises:
        UserError: if there is nothing to resume.
    """
    if resume != 'auto':
        return resume
    path = find_latest_checkpoint(work_dir) if osp.isdir(work_dir) else None
    if path is None:
        raise UserError(f'--resume: {work_dir} holds no checkpoint to go on from; leave --resume out to start a run')
    path = path.strip()
    if not osp.isfile(path):
        # last_checkpoint holds the path as it was then; the folder may have been moved.
        beside = osp.join(work_dir, osp.basename(path))
        if not osp.isfile(beside):
            raise UserError(f'--resume: {work_dir}/last_checkpoint names {path}, which does not exist')
        path = beside
    return path


def check_resumable(checkpoint: dict, path: str) -> None:
    """Raise UserError if the checkpoint holds weights only."""
    missing = [k for k in ('meta', 'optimizer', 'message_hub') if k not in checkpoint]
    if missing:
        raise UserError(
            f'--resume: {path} has no {", ".join(missing)}: it holds weights only; start from them with '
            f'--cfg-options load_from={path}'
        )
