#!/usr/bin/env python
"""Evaluate a checkpoint of MMDetection, MMSegmentation or MMPretrain.

python tools/test.py configs/mask_rcnn_r50_scsa_coco.py work_dirs/mask_rcnn_r50_scsa_coco/epoch_12.pth
"""

import argparse
import copy
import os

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner

import scsa_mm  # noqa: F401  (registers the attention and lets torch.load read mmengine's checkpoints)
from scsa_mm.runtime.checkpoints import check_fits, read_checkpoint
from scsa_mm.runtime.config import add_common_arguments, config_of
from scsa_mm.runtime.data import check_data
from scsa_mm.runtime.devices import check_gpus, prepare_cpu_processes, process_group_ended
from scsa_mm.runtime.errors import UserError, one_line_errors
from scsa_mm.runtime.plugins import check_plugins
from scsa_mm.runtime.report import describe_attention


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Evaluate a checkpoint of MMDetection, MMSegmentation or MMPretrain', allow_abbrev=False
    )
    parser.add_argument('config', help='a file, or a name such as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    parser.add_argument('checkpoint', help='a file, or anything that mmengine loads from')
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='keep the predictions in FILE.pkl, the metrics in FILE.json, or (mmseg) the label maps in a folder',
    )
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='keep a picture of each prediction')
    parser.add_argument('--wait-time', type=float, default=2, metavar='SECONDS', help='pause between windows')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_common_arguments(parser)
    return parser.parse_args()


def check_out(cfg: Config, out: str) -> None:
    """Let mmseg write its label maps; other forms of ``--out`` are written here."""
    if out.endswith(('.pkl', '.pickle', '.json')):
        return
    if cfg.get('default_scope') != 'mmseg':
        raise UserError(f'--out takes FILE.pkl (predictions) or FILE.json (metrics), got {out}')
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    for evaluator in evaluators:
        evaluator['output_dir'] = out


def use_pictures(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Each mm package draws through a visualization hook, whose options have other names in each."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need default_hooks.visualization in the config')
    scope = cfg.get('default_scope')
    hook['enable' if scope == 'mmpretrain' else 'draw'] = True
    hook['interval'] = 1
    if show:
        hook['show'] = True
        hook['wait_time'] = wait_time
    if show_dir and scope == 'mmpretrain':
        hook['out_dir'] = show_dir
    elif show_dir and scope == 'mmseg':
        cfg.visualizer['save_dir'] = show_dir
    elif show_dir:
        hook['test_out_dir'] = show_dir


def use_tta(cfg: Config) -> None:
    """Test each image as it is and flipped, or as the config's own ``tta_pipeline`` says."""
    scope = cfg.get('default_scope')
    if scope == 'mmseg' and ('tta_model' not in cfg or 'tta_pipeline' not in cfg):
        raise UserError('--tta needs tta_model and tta_pipeline in an mmseg config')
    tta_model = cfg.get('tta_model')
    pipeline = cfg.get('tta_pipeline')
    if tta_model is None and scope == 'mmpretrain':
        tta_model = ConfigDict(type='mmpretrain.AverageClsScoreTTA')
    elif tta_model is None:
        tta_model = ConfigDict(
            type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if pipeline is None:
        pipeline = flip_pipeline(dataset.pipeline, scope)
    cfg.model = ConfigDict(**tta_model, module=cfg.model)
    dataset.pipeline = pipeline


def flip_pipeline(pipeline: list, scope: str) -> list:
    """The test pipeline with its last step (packing) done for the image as it is and for the flipped one."""
    pipeline = copy.deepcopy(pipeline)
    pack = pipeline.pop()
    if scope != 'mmpretrain':
        pack['meta_keys'] = (
            'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction',
        )  # fmt: skip
    flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
    return [*pipeline, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def predictions_to(out: str, cfg: Config) -> DumpResults:
    """A metric that keeps the predictions; mmdet's own encodes masks, which would not fit into memory."""
    if cfg.get('default_scope') != 'mmdet':
        return DumpResults(out_file_path=out)
    return METRICS.build(dict(type='mmdet.DumpDetResults', out_file_path=out))


def keep_training_config(cfg: Config) -> None:
    """Let mmengine dump this run's config beside that of the training, and not over it."""
    stem = os.path.splitext(os.path.basename(cfg.filename))[0]
    object.__setattr__(cfg, '_filename', f'{stem}.test.py')


@process_group_ended()
def main() -> None:
    args = parse_args()
    with one_line_errors():
        cfg = config_of(args)
        if cfg.get('test_dataloader') is None:
            raise UserError(f'{args.config} has no test_dataloader')
        if args.out:
            check_out(cfg, args.out)
        if args.show or args.show_dir:
            use_pictures(cfg, args.show, args.show_dir, args.wait_time)
        check_gpus()
        check_plugins(cfg)
        check_data(cfg, ('test',))
        checkpoint = read_checkpoint(args.checkpoint)
        if args.tta:
            use_tta(cfg)
        cfg.load_from, cfg.resume = args.checkpoint, False
        keep_training_config(cfg)
        prepare_cpu_processes(cfg)
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        check_fits(runner.model, checkpoint, args.checkpoint)
    runner.logger.info(describe_attention(runner.model))
    if args.out and args.out.endswith(('.pkl', '.pickle')):
        runner.test_evaluator.metrics.append(predictions_to(args.out, cfg))
    metrics = runner.test()
    if args.out and args.out.endswith('.json') and runner.rank == 0:
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
