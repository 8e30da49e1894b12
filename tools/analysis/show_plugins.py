#!/usr/bin/env python
"""Show the attention in the model of a config, or what would be put into it, before anything is trained.

python tools/analysis/show_plugins.py configs/mask_rcnn_r50_scsa_coco.py
python tools/analysis/show_plugins.py mmdet::yolox/yolox_s_8xb8-300e_coco.py --plugin EMA --plugin-stages 2,3,4
"""

import argparse

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

import scsa_mm  # noqa: F401  (registers the attention)
from scsa_mm.analysis.complexity import image_size
from scsa_mm.plugging import inserted
from scsa_mm.plugging.places import Place
from scsa_mm.plugging.trial import Flow, Trial
from scsa_mm.runtime.config import CfgOptions, load_config
from scsa_mm.runtime.errors import UserError, one_line, one_line_errors
from scsa_mm.runtime.plugin_options import add_plugin_arguments, use_plugins
from scsa_mm.runtime.plugins import check_plugins
from scsa_mm.runtime.report import attention_in, describe_attention


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Show the attention in a model', allow_abbrev=False)
    parser.add_argument('config', help='a file, or a name such as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'), help='in pixels (default: as it is tested)')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    add_plugin_arguments(parser)
    return parser.parse_args()


def build(cfg: Config) -> nn.Module:
    check_plugins(cfg)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        return MODELS.build(cfg.model)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'the model cannot be built: {one_line(error)}') from error


def flops(attention: nn.Module, flow: Flow) -> int:
    analyzer = FlopAnalyzer(attention.eval(), torch.zeros(1, *flow.shape[1:]))
    return analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def acts(path: str, place: Place | None) -> str:
    """Where, named from the module that holds the attention."""
    if place is None:
        return 'plugins='
    owner = path.rpartition('.')[0]
    entry = '' if place.output is None else f'output {place.output} of '
    target = place.target.removeprefix(owner).removeprefix('.') or 'it'
    return f'{place.when} {entry}{target}'


def table_of(model: nn.Module, size: tuple[int, int]) -> Table:
    modules, places = attention_in(model), inserted(model)
    trial = Trial(model, modules, size)
    table = Table(title=f'attention for an image of {size[0]} x {size[1]}', box=box.SIMPLE)
    for name in ('module', 'type', 'acts'):
        table.add_column(name, overflow='fold')
    for name in ('input', 'parameters', 'MFLOPs'):
        table.add_column(name, justify='right', no_wrap=True)
    parameters, operations = 0, 0
    for path, attention in modules.items():
        flow = trial.flow(Place(path, 'before'))
        count = sum(p.numel() for p in attention.parameters())
        cost = flops(attention, flow) if flow.shape else 0
        parameters, operations = parameters + count, operations + cost
        shape = 'x'.join(map(str, flow.shape[1:])) if flow.shape else f'{flow.in_channels} channels'
        where = acts(path, places.get(path))
        table.add_row(path, type(attention).__name__, where, shape, f'{count:,}', f'{cost / 1e6:.2f}' if cost else '?')
    table.add_section()
    table.add_row(f'all {len(modules)}', '', '', '', f'{parameters:,}', f'{operations / 1e6:.2f}')
    whole = sum(p.numel() for p in model.parameters())
    table.caption = f'the whole model has {whole:,} parameters; FLOPs as mmengine counts them (multiply-adds)'
    return table


def main() -> None:
    args = parse_args()
    console = Console()
    with one_line_errors():
        cfg = load_config(args.config, args.cfg_options)
        for note in use_plugins(cfg, args):
            console.print(note)
        model = build(cfg)
        if not attention_in(model):
            raise UserError(f'{args.config} has no attention of scsa_mm; --plugin NAME shows what would be put into it')
        console.print(table_of(model, tuple(args.shape) if args.shape else image_size(cfg)))
        console.print(describe_attention(model))


if __name__ == '__main__':
    main()
