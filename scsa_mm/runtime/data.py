"""Whether the files that a config's datasets name are there, before anything is built."""

import inspect
import os.path as osp
from collections.abc import Iterable, Iterator

from mmengine.config import Config
from mmengine.registry import DATASETS

from .checkpoints import is_local
from .errors import UserError

MINIATURES = ('coco', 'ade20k', 'visdrone', 'exdark', 'flir', 'voc', 'imagenet', 'cifar100')
# Where a data set is found, by a part of its usual path; miniatures first, as they hold folders named as the real ones.
SOURCES = {
    **{
        f'miniature_{n}': f'make it with: python tools/make_miniature.py --dataset {n} --out data/miniature_{n}'
        for n in MINIATURES
    },
    'coco': 'get train2017, val2017 and annotations from https://cocodataset.org/#download into data/coco',
    'VOCdevkit': 'get VOC2007 and VOC2012 from http://host.robots.ox.ac.uk/pascal/VOC/ into data/VOCdevkit',
    'ade': 'get ADEChallengeData2016 from http://sceneparsing.csail.mit.edu into data/ade',
    'imagenet': 'get ILSVRC2012 from https://image-net.org/download into data/imagenet',
    'VisDrone2019': 'get VisDrone2019-DET from https://github.com/VisDrone/VisDrone-Dataset into data/VisDrone2019',
    'ExDark': 'get ExDark from https://github.com/cs-chan/Exclusively-Dark-Image-Dataset into data/ExDark',
    'FLIR_ADAS_v2': 'get FLIR ADAS v2 from https://www.flir.com/oem/adas/adas-dataset-form/ into data/FLIR_ADAS_v2',
    'cifar100': 'get cifar-100-python from https://www.cs.toronto.edu/~kriz/cifar.html into data/cifar100',
}


# Data sets of which a config reads what tools/dataset_converters/NAME.py writes into DIR/coco.
CONVERTERS = {'VisDrone2019': 'visdrone', 'ExDark': 'exdark', 'FLIR_ADAS_v2': 'flir'}


def _leaf_datasets(dataset: dict) -> Iterator[dict]:
    """The datasets that read files, inside wrappers such as RepeatDataset and ConcatDataset."""
    if 'dataset' in dataset:
        yield from _leaf_datasets(dataset['dataset'])
    elif 'datasets' in dataset:
        for inner in dataset['datasets']:
            yield from _leaf_datasets(inner)
    else:
        yield dataset


def _downloads_itself(dataset: dict, scope: str) -> bool:
    cls = dataset['type']
    if isinstance(cls, str):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            cls = registry.get(cls)
    return cls is not None and 'download' in inspect.signature(cls.__init__).parameters


def _files(dataset: dict) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    prefixes = dataset.get('data_prefix') or {}
    prefixes = prefixes.values() if isinstance(prefixes, dict) else [prefixes]
    for part in [dataset.get('ann_file') or '', *prefixes]:
        if isinstance(part, str) and (part or root):
            yield osp.join(root, part)


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Raise UserError, naming the file and where to get the data, unless each split's files are there.

    Args:
        cfg: The whole config.
        splits: Any of ``'train'``, ``'val'``, ``'test'``.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if not loader or 'dataset' not in loader:
            continue
        for dataset in _leaf_datasets(loader['dataset']):
            if dataset.get('backend_args') or _downloads_itself(dataset, scope):
                continue
            _check_exist(_files(dataset), split)
        _check_exist(_truth(cfg.get(f'{split}_evaluator')), split)


def _check_exist(files: Iterable[str], split: str) -> None:
    missing = [f for f in files if is_local(f) and not osp.exists(f)]
    if missing:
        raise UserError(f'{split} data: {missing[0]} not found; {_way_out(missing[0], split)}')


def _truth(evaluator: dict | list | None) -> Iterator[str]:
    """The ground truth that metrics read themselves."""
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator or {}]:
        if not metric.get('backend_args'):
            yield from (metric[key] for key in ('ann_file', 'ann_dir') if metric.get(key))


def check_pretrained(cfg: Config) -> None:
    """Raise UserError if a backbone starts from a local file of weights that is not there."""
    name, backbone = 'model.backbone', cfg.get('model', {}).get('backbone', {})
    while isinstance(backbone.get('module'), dict):  # inside WithPlugins
        name, backbone = f'{name}.module', backbone['module']
    init_cfg = backbone.get('init_cfg')
    path = init_cfg.get('checkpoint') if isinstance(init_cfg, dict) else None
    if path and is_local(path) and not osp.isfile(path):
        raise UserError(f'{name}.init_cfg.checkpoint: {path} not found')


def _way_out(path: str, split: str) -> str:
    parts = path.split('/')
    root = osp.dirname(osp.dirname(path))
    converter = CONVERTERS.get(osp.basename(root))
    if converter and parts[-2] == 'coco' and osp.isdir(root):
        return f'make it from the data set as it comes: python tools/dataset_converters/{converter}.py {root}'
    for name, source in SOURCES.items():
        if name in parts:
            return f'{source}, or link the folder that has it: ln -s /your/{name} data/{name}'
    return f'correct {split}_dataloader.dataset.data_root in the config, or put the data there'
