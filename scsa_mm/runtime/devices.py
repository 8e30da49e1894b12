"""The devices that a run asks for, and running on the CPU where mmengine expects a GPU."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from mmengine.config import Config

from .errors import UserError


def check_gpus(processes: int = 1) -> None:
    """Raise UserError if GPUs are asked for that are not there; without any GPU a run uses the CPU.

    Args:
        processes: Processes on this machine, each of which takes a GPU of its own.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if torch.cuda.is_available():
        there = torch.cuda.device_count()
        if processes > there:
            limit = f' (CUDA_VISIBLE_DEVICES={visible})' if visible else ''
            raise UserError(f'{processes} GPUs asked for, {there} there{limit}; ask for at most {there}')
    elif visible not in (None, '', '-1'):
        raise UserError(
            f'CUDA_VISIBLE_DEVICES={visible} asks for a GPU and torch {torch.__version__} finds none; '
            'unset it, or set it to -1, to run on the CPU'
        )


def prepare_cpu_processes(cfg: Config) -> None:
    """Several processes without a GPU: mmengine 0.10.7 would call CUDA and NCCL, and SyncBN works on GPUs only."""
    if cfg.get('launcher', 'none') == 'none' or torch.cuda.is_available():
        return
    # mmengine leaves a process group that exists alone.
    if cfg.launcher == 'pytorch' and not dist.is_initialized():
        dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        ),
        **(cfg.get('model_wrapper_cfg') or {}),
        device_ids=None,
    )
    _without_sync_bn(cfg.model)


@contextmanager
def process_group_ended() -> Iterator[None]:
    """At a normal end wait for the other processes and end the process group, if there is one.

    Decorates a tool's ``main``. A thread of gloo that frees a tensor while the interpreter shuts down aborts the
    process: "terminate called without an active exception". Ending the group joins these threads, but only if nothing
    else holds it, as a runner does that is still in a variable or not yet collected. After an exception the others may
    never come, so nobody waits for them.
    """
    yield
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # a runner is part of reference cycles
        dist.barrier()
        dist.destroy_process_group()


def _without_sync_bn(node: object) -> None:
    """Plain BN for SyncBN, as mmengine does for a single process."""
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        for value in node.values():
            _without_sync_bn(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _without_sync_bn(value)
