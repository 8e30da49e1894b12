"""The configs made small: the tools run in a folder with miniature data, with options for one iteration."""

import os
import subprocess
import sys
from collections.abc import Iterator

from scsa_mm.datasets.classes import VOC
from tests.conftest import ROOT

# Name under data/, format of the generator, converter of what it writes.
SETS = (
    ('coco', 'coco', None),
    ('ade', 'ade20k', None),
    ('VOCdevkit', 'voc', None),
    ('VisDrone2019', 'visdrone', 'visdrone'),
    ('ExDark', 'exdark', 'exdark'),
    ('FLIR_ADAS_v2', 'flir', 'flir'),
    ('imagenet', 'imagenet', None),
    ('cifar100', 'cifar100', None),
)
SIZES = {'Resize': 'scale', 'RandomResize': 'scale', 'Mosaic': 'img_scale', 'MixUp': 'img_scale'}
SIDES = {'RandomResizedCrop': 'scale', 'ResizeEdge': 'scale', 'CenterCrop': 'crop_size'}


def run(root, *command):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, command)], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def small(node: object, path: str) -> Iterator[str]:
    """Options that shrink what the pipelines below ``node`` make of an image."""
    if isinstance(node, dict):
        kind = node.get('type')
        if kind in SIZES and SIZES[kind] in node:
            yield f'{path}.{SIZES[kind]}=(128,96)'
        if kind in SIDES:
            yield f'{path}.{SIDES[kind]}=64'
        if kind == 'RandomCrop' and 'cat_max_ratio' in node:
            yield f'{path}.crop_size=(64,64)'
        if kind == 'RandomAffine':
            yield f'{path}.border=(-64,-48)'
        for key, value in node.items():
            yield from small(value, f'{path}.{key}')
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from small(value, f'{path}.{i}')


def other_classes(cfg, names) -> Iterator[str]:
    """Options that make the data sets and heads those of other classes."""
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        inner = '.dataset' if 'dataset' in dataset else ''
        yield f'{split}_dataloader.dataset{inner}.metainfo.classes=({",".join(names)})'
    yield from (f'{path}={len(names)}' for path in heads(cfg.model, 'model'))


def heads(node: object, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        if 'num_classes' in node:
            yield f'{path}.num_classes'
        for key, value in node.items():
            yield from heads(value, f'{path}.{key}')
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from heads(value, f'{path}.{i}')


def options_of(cfg) -> list[str]:
    """One iteration of two images, without workers and downloads."""
    options = [
        *small(cfg.train_dataloader, 'train_dataloader'),
        *small(cfg.val_dataloader, 'val_dataloader'),
        *small(cfg.test_dataloader, 'test_dataloader'),
        'train_dataloader.batch_size=8' if cfg.default_scope != 'mmseg' else 'train_dataloader.batch_size=2',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=1',
    ]
    for split in ('train', 'val', 'test'):
        options += [f'{split}_dataloader.num_workers=0', f'{split}_dataloader.persistent_workers=False']
    if cfg.train_cfg.get('max_iters'):
        options += ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    else:
        options += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    if cfg.train_dataloader.dataset.type == 'CIFAR100':  # which wants the check sums of the real files
        splits = ('train', 'val', 'test')
        options += [f'{split}_dataloader.dataset.type=scsa_mm.UncheckedCIFAR100' for split in splits]
    if "'data/coco/'" in str(cfg.train_dataloader.dataset):  # the miniature has shapes in place of COCO's classes
        options += other_classes(cfg, ('circle', 'square', 'triangle', 'star'))
    if cfg.model.type in ('RetinaNet', 'YOLOX'):
        options += ['model.test_cfg.score_thr=0']  # mmdet gives no metric where nothing is detected
    if cfg.get('data_root') == 'data/BCCD':
        options += other_classes(cfg, VOC[:3])
    backbone = 'model.backbone.module' if 'module' in cfg.model.backbone else 'model.backbone'
    options += [f'{backbone}.init_cfg=None']
    if cfg.model.get('data_preprocessor', {}).get('size'):
        options += ['model.data_preprocessor.size=(64,64)']
    return options
