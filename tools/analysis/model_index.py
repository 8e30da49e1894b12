#!/usr/bin/env python
"""Count every config's model and write the model index: configs/metafile.yml and the table in configs/README.md.

python tools/analysis/model_index.py                 # all, some minutes
python tools/analysis/model_index.py yolox_s_ema_coco

Results are kept: a number that a run gave is written into metafile.yml by hand, with where the run is described.
"""

import argparse
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import track

from scsa_mm.analysis.complexity import complexity_of
from scsa_mm.runtime.config import load_config
from scsa_mm.runtime.errors import UserError, one_line_errors

ROOT = Path(__file__).resolve().parents[2]
METAFILE = ROOT / 'configs/metafile.yml'
README = ROOT / 'configs/README.md'
HEAD = '| config | data | parameters | in attention | GFLOPs at | result |'
PAPERS = {
    'SCSA': (
        'SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention',
        'https://arxiv.org/abs/2407.05128',
    ),
    'EMA': (
        'Efficient Multi-Scale Attention Module with Cross-Spatial Learning',
        'https://arxiv.org/abs/2305.13563',
    ),
}
# By the end of a config's name: data, task, and what is measured.
DATA = {
    'coco': ('COCO 2017', 'Object Detection', ('box AP',)),
    'visdrone': ('VisDrone2019-DET', 'Object Detection', ('box AP@100', 'box AP@500', 'toolkit AP')),
    'exdark': ('ExDark', 'Object Detection', ('box AP',)),
    'flir': ('FLIR-ADAS v2 thermal', 'Object Detection', ('box AP',)),
    'voc': ('PascalVOC 07+12', 'Object Detection', ('AP50',)),
    'bccd': ('BCCD', 'Object Detection', ('AP50',)),
    'ade20k': ('ADE20K', 'Semantic Segmentation', ('mIoU',)),
    'in1k': ('ImageNet-1K', 'Image Classification', ('Top 1 Accuracy', 'Top 5 Accuracy')),
    'cifar100': ('CIFAR-100', 'Image Classification', ('Top 1 Accuracy', 'Top 5 Accuracy')),
}


def configs() -> list[Path]:
    return sorted((ROOT / 'configs').glob('*.py'))


def entry(path: Path, old: dict | None) -> dict:
    """The model index's entry of a config, with the results of the old one."""
    cfg = load_config(str(path))
    found = complexity_of(cfg)
    data, task, metrics = DATA[path.stem.rpartition('_')[2]]
    tasks = {task: metrics}
    if path.stem.startswith('mask_rcnn'):
        tasks['Instance Segmentation'] = ('mask AP',)
    loop = cfg.train_cfg
    length = {'Epochs': loop.max_epochs} if loop.get('max_epochs') else {'Iterations': loop.max_iters}
    return {
        'Name': path.stem,
        'In Collection': 'EMA' if '_ema_' in path.stem else 'SCSA',
        'Config': f'configs/{path.name}',
        'Metadata': {
            'Training Data': data,
            **length,
            'Parameters': found.parameters,
            'Parameters in Attention': found.attention,
            'FLOPs': found.flops,
            'Image Size': f'{found.size[0]}x{found.size[1]}',
        },
        'Results': (old or {}).get('Results')
        or [{'Task': t, 'Dataset': data, 'Metrics': dict.fromkeys(names)} for t, names in tasks.items()],
    }


def row(model: dict) -> str:
    meta = model['Metadata']
    values = {k: v for result in model['Results'] for k, v in result['Metrics'].items() if v is not None}
    cells = (
        f'[{model["Name"]}]({Path(model["Config"]).name})',
        meta['Training Data'],
        f'{meta["Parameters"]:,}',
        f'{meta["Parameters in Attention"]:,}',
        f'{meta["FLOPs"] / 1e9:.2f} at {meta["Image Size"]}',
        ', '.join(f'{k} {v}' for k, v in values.items()),
    )
    return f'| {" | ".join(cells)} |'


def table(models: list[dict]) -> str:
    return '\n'.join([HEAD, '| --- ' * HEAD.count(' |') + '|', *map(row, models)]) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description='Write the model index', allow_abbrev=False)
    parser.add_argument('names', nargs='*', help='configs to count again (default: all)')
    names = parser.parse_args().names
    with one_line_errors():
        old = yaml.safe_load(METAFILE.read_text()) if METAFILE.is_file() else {'Models': []}
        known = {model['Name']: model for model in old['Models']}
        stems = [path.stem for path in configs()]
        unknown = sorted(set(names) - set(stems))
        if unknown:
            raise UserError(f'there is no configs/{unknown[0]}.py')
        todo = [p for p in configs() if not names or p.stem in names or p.stem not in known]
        for path in track(todo, description='counting', console=Console(stderr=True)):
            known[path.stem] = entry(path, known.get(path.stem))
    models = [known[stem] for stem in stems]
    collections = [
        {'Name': name, 'Paper': {'Title': title, 'URL': url}, 'README': 'configs/README.md'}
        for name, (title, url) in PAPERS.items()
    ]
    METAFILE.write_text(yaml.safe_dump({'Collections': collections, 'Models': models}, sort_keys=False, width=120))
    text = README.read_text()
    start = text.index(HEAD)
    end = text.find('\n\n', start)
    README.write_text(text[:start] + table(models) + (text[end + 1 :] if end >= 0 else ''))


if __name__ == '__main__':
    main()
