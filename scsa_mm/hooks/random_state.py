"""Exact resuming: random states go into each checkpoint and come back with it."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop

from ..registry import HOOKS

KEY = 'random_state'


def capture() -> dict[str, Any]:
    """The random states of Python, NumPy and torch in this process, of types that ``weights_only=True`` loads."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state = dict(
        python=random.getstate(),
        numpy=(name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Any]) -> None:
    """Put the states of :func:`capture` back."""
    random.setstate(state['python'])
    name, keys, position, has_gauss, gauss = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    # A checkpoint is loaded onto the training device; generators take their state from the CPU.
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


class _CallAfterSkipping:
    """Iterator that calls ``action`` once, after ``skip`` items: where mmengine has skipped what was trained before."""

    def __init__(self, iterator: Any, skip: int, action: Callable[[], None]) -> None:
        self._iterator = iterator
        self._skip = skip
        self._action = action

    def __iter__(self) -> '_CallAfterSkipping':
        return self

    def skip_iter(self, num_iters: int) -> None:
        """How OneDL's mmengine skips, leaving the iterator to be built anew, which draws a random number."""
        self._iterator.skip_iter(num_iters)
        self._iterator._ensure_iterator()
        self._skip = 0

    def __next__(self) -> Any:
        if self._skip == 0:
            self._action()
        self._skip -= 1
        return next(self._iterator)


@HOOKS.register_module(force=True)  # harmless when this file is loaded again
class RandomStateHook(Hook):
    """Make a resumed run go on exactly as the uninterrupted one would have.

    mmengine saves weights, optimizer and schedule, but no random states. This hook saves those of every rank, keeps
    validation from using up the training run's random numbers, and on ``resume`` restores them right before the first
    batch is loaded. ``tools/train.py`` adds it to every run.

    What holds: resumed from the end of an epoch (epoch-based) or from any iteration (iteration-based), with the same
    number of ranks: bit for bit on the CPU with ``num_workers=0``. With workers the samples and their order are the
    same, while augmentations are only if workers start anew in each epoch (``persistent_workers=False`` and a
    seed). On a GPU the random numbers are the same, while kernels that add atomically, mmcv's RoIAlign among them,
    differ from run to run. What a pipeline remembers itself (CachedMosaic) is not saved.
    """

    # After everything that trains, before CheckpointHook (VERY_LOW) saves.
    priority = 'LOW'

    def __init__(self) -> None:
        self._all_ranks: list[dict[str, Any]] | None = None
        self._before_val: dict[str, Any] | None = None
        self._resumed: dict[str, Any] | None = None

    def _collect(self) -> None:
        # save_checkpoint runs on the first rank alone, so the states are gathered where all ranks still run.
        self._all_ranks = all_gather_object(capture())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if any(_saves_now(hook, runner) for hook in runner.hooks):
            self._collect()

    def after_train_epoch(self, runner) -> None:
        self._collect()

    def before_val(self, runner) -> None:
        self._collect()
        self._before_val = self._all_ranks[get_rank()]

    def after_val(self, runner) -> None:
        restore(self._before_val)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._all_ranks is not None:
            checkpoint[KEY] = self._all_ranks

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        states = checkpoint.get(KEY)
        if states is None:
            runner.logger.warning('The checkpoint holds no random states: the run goes on, but not bit for bit.')
        elif len(states) != get_world_size():
            runner.logger.warning(
                f'The checkpoint holds the random states of {len(states)} processes, and this run has '
                f'{get_world_size()}: the run goes on, but not bit for bit.'
            )
        else:
            self._resumed = states[get_rank()]

    def before_train_epoch(self, runner) -> None:
        if self._resumed is None:
            return
        state, self._resumed = self._resumed, None
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            restore(state)
        else:
            loop.dataloader_iterator = _CallAfterSkipping(
                loop.dataloader_iterator, skip=loop.iter, action=lambda: restore(state)
            )


def _saves_now(hook: Hook, runner) -> bool:
    """Whether this is a CheckpointHook that saves after the current iteration."""
    if not isinstance(hook, CheckpointHook) or hook.by_epoch:
        return False
    due = hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
    return due or (hook.save_last and hook.is_last_train_iter(runner))
