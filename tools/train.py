#!/usr/bin/env python
"""Train a model of MMDetection, MMSegmentation or MMPretrain, with or without attention.

python tools/train.py configs/mask_rcnn_r50_scsa_coco.py
python tools/train.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py --amp
python tools/train.py mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py --plugin SCSA --plugin-outputs all
"""

import argparse
import os
from urllib.error import URLError

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import scsa_mm  # noqa: F401  (registers the attention and lets torch.load read mmengine's checkpoints)
from scsa_mm.runtime.checkpoints import (
    check_fits,
    check_nothing_overwritten,
    check_resumable,
    check_some_fit,
    find_resume,
    read_checkpoint,
)
from scsa_mm.runtime.config import add_common_arguments, config_of
from scsa_mm.runtime.data import check_data, check_pretrained
from scsa_mm.runtime.devices import check_gpus, prepare_cpu_processes, process_group_ended
from scsa_mm.runtime.errors import UserError, one_line_errors
from scsa_mm.runtime.plugin_options import add_plugin_arguments, use_plugins
from scsa_mm.runtime.plugins import check_plugins
from scsa_mm.runtime.pretrained import describe_pretrained
from scsa_mm.runtime.report import describe_attention


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Train a model of MMDetection, MMSegmentation or MMPretrain', allow_abbrev=False
    )
    parser.add_argument('config', help='a file, or a name such as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (needs a GPU)')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a path from the last one in the work dir',
    )
    add_common_arguments(parser)
    add_plugin_arguments(parser)
    return parser.parse_args()


def use_amp(cfg: Config) -> None:
    if not torch.cuda.is_available():
        raise UserError('--amp needs a GPU, and torch finds none; leave it out to train on the CPU')
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    wrapper = getattr(wrapper, '__name__', wrapper)  # new-style configs name the class itself
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp replaces OptimWrapper, and this config has {wrapper}')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_auto_scale_lr(cfg: Config) -> None:
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError('--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config')
    cfg.auto_scale_lr.enable = True


def use_checkpoint(cfg: Config, resume: str | None) -> dict | None:
    """Read the checkpoint that the run starts or goes on from, if any; in the second case take over its seed."""
    if resume is None and not cfg.get('resume'):
        check_nothing_overwritten(cfg)
        return read_checkpoint(cfg.load_from) if cfg.get('load_from') else None
    path = find_resume(cfg.work_dir, resume or cfg.get('load_from') or 'auto')
    if os.path.abspath(os.path.dirname(path)) != os.path.abspath(cfg.work_dir):
        check_nothing_overwritten(cfg)
    cfg.resume, cfg.load_from = True, path
    checkpoint = read_checkpoint(path)
    check_resumable(checkpoint, path)
    # mmengine takes the checkpoint's seed over too, but only after the samplers were built with another.
    randomness = cfg.get('randomness') or {}
    if randomness.get('seed') is None:
        cfg.randomness = {**randomness, 'seed': checkpoint['meta'].get('seed')}
    return checkpoint


def add_random_state_hook(cfg: Config) -> None:
    hook = dict(type='scsa_mm.RandomStateHook')
    hooks = cfg.get('custom_hooks') or []
    if hook not in hooks:
        cfg.custom_hooks = [*hooks, hook]


def build_runner(cfg: Config, checkpoint: dict | None) -> Runner:
    """The runner, once it is known that the checkpoint fits its model."""
    prepare_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if checkpoint is not None:
        check = check_fits if cfg.get('resume') else check_some_fit
        check(runner.model, checkpoint, cfg.load_from)
    return runner


@process_group_ended()
def main() -> None:
    args = parse_args()
    with one_line_errors():
        cfg = config_of(args)
        check_gpus()
        if args.amp:
            use_amp(cfg)
        if args.auto_scale_lr:
            use_auto_scale_lr(cfg)
        notes = use_plugins(cfg, args)
        check_plugins(cfg)
        check_data(cfg, ('train', 'val'))
        check_pretrained(cfg)
        add_random_state_hook(cfg)
        # Not kept in a variable: it would hold the memory of weights and optimizer during the whole training.
        runner = build_runner(cfg, use_checkpoint(cfg, args.resume))
        for line in (*notes, describe_attention(runner.model)):
            runner.logger.info(line)
        try:
            if is_main_process():
                for line in describe_pretrained(runner.model):
                    runner.logger.info(line)
        except URLError as error:
            raise UserError(
                f'pretrained weights cannot be downloaded ({error.reason}); name a file with --cfg-options '
                'model.backbone.init_cfg.checkpoint=FILE, or start from scratch with model.backbone.init_cfg=None'
            ) from error
        try:
            runner.train()
        except URLError as error:
            raise UserError(
                f'the data set cannot be downloaded ({error.reason}); put it where the config has it'
            ) from error


if __name__ == '__main__':
    main()
