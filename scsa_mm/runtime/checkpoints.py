"""Checkpoints as a tool meets them: missing, cut off, of another model, nothing to resume."""

import os.path as osp
import pickle
from pathlib import Path
from urllib.error import URLError

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from .errors import UserError, one_line


def is_local(path: str) -> bool:
    """Whether ``path`` is a file name and not something that mmengine downloads."""
    return '://' not in path


def read_checkpoint(path: str) -> dict:
    """Load a checkpoint on the CPU, as torch does by default (from torch 2.6 with ``weights_only=True``).

    Raises:
        UserError: if it is not there, cannot be downloaded, is cut off, or holds more than weights and plain values.
    """
    if not is_local(path):
        try:
            return CheckpointLoader.load_checkpoint(path, map_location='cpu')
        except (URLError, FileNotFoundError) as error:
            raise UserError(f'checkpoint {path} cannot be downloaded: {one_line(error)}') from error
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


def weights_of(checkpoint: dict) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by their names without DDP's ``module.``."""
    weights = next((checkpoint[k] for k in ('state_dict', 'model') if isinstance(checkpoint.get(k), dict)), checkpoint)
    return {k.removeprefix('module.'): v for k, v in weights.items() if isinstance(v, torch.Tensor)}


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DDP or test-time augmentation."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    return model


def check_some_fit(model: nn.Module, checkpoint: dict, path: str) -> None:
    """Raise UserError if not one parameter of the model is in the checkpoint: a start from it would be from scratch."""
    weights = weights_of(checkpoint)
    if not any(n in weights and weights[n].shape == p.shape for n, p in _unwrapped(model).named_parameters()):
        example = next(iter(weights), 'no tensor at all')
        raise UserError(f'load_from: no parameter of this model is in {path}; it holds e.g. {example}')


def check_fits(model: nn.Module, checkpoint: dict, path: str) -> None:
    """Load the checkpoint into the model; raise UserError unless every parameter is in it, in its shape.

    mmengine only warns, and then evaluates random weights. Loading, not comparing names, lets a model convert
    weights of an older form.
    """
    model = _unwrapped(model)
    parameters = dict(model.named_parameters())
    try:
        missing = model.load_state_dict(weights_of(checkpoint), strict=False).missing_keys
        missing = [name for name in missing if name in parameters]
        example = f'{missing[0]} is not in it' if missing else None
    except RuntimeError as error:
        example = str(error).splitlines()[-1].strip().rstrip('.')
    if example:
        raise UserError(f'checkpoint {path} is of another model: {example}; use the config that it was trained with')


def check_nothing_overwritten(cfg: Config) -> None:
    """Raise UserError if a new run would write over the checkpoints of an earlier one."""
    out_dir = cfg.get('default_hooks', {}).get('checkpoint', {}).get('out_dir')
    folders = [cfg.work_dir]
    if out_dir and is_local(out_dir):
        folders.append(osp.join(out_dir, osp.basename(cfg.work_dir.rstrip('/'))))
    for folder in folders:
        found = _saved_in(folder)
        if found:
            raise UserError(
                f'{folder} holds {len(found)} checkpoint(s) of an earlier run, e.g. {found[-1]}; --resume goes on '
                'with it, another --work-dir keeps it'
            )


def _saved_in(folder: str) -> list[str]:
    return sorted(p.name for p in Path(folder).glob('*.pth'))


def find_resume(work_dir: str, resume: str) -> str:
    """The checkpoint that ``--resume`` (``'auto'``) or ``--resume PATH`` means.

    Raises:
        UserError: if there is nothing to resume.
    """
    if resume != 'auto':
        return resume
    noted = Path(work_dir) / 'last_checkpoint'
    path = noted.read_text().strip() if noted.is_file() else ''
    # It holds the path as it was then; the folder may have been moved.
    for candidate in (path, osp.join(work_dir, osp.basename(path))):
        if osp.isfile(candidate):
            return candidate
    found = _saved_in(work_dir)
    if found:
        said = f'names {path}, which does not exist' if path else 'does not say which is the last'
        raise UserError(
            f'--resume: {noted} {said}; name one of {", ".join(found)} with --resume {work_dir}/NAME (one that a kill '
            'cut off is refused), or start in another --work-dir'
        )
    raise UserError(f'--resume: {work_dir} holds no checkpoint to go on from; leave --resume out to start a run')


def check_resumable(checkpoint: dict, path: str) -> None:
    """Raise UserError if the checkpoint holds weights only."""
    missing = [k for k in ('meta', 'optimizer', 'message_hub') if k not in checkpoint]
    if missing:
        raise UserError(
            f'--resume: {path} has no {", ".join(missing)}: it holds weights only; start from them with '
            f'--cfg-options load_from={path}'
        )
