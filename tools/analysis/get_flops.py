#!/usr/bin/env python
"""Print parameters and FLOPs of the model in a config.

python tools/analysis/get_flops.py configs/mask_rcnn_r50_scsa_coco.py
python tools/analysis/get_flops.py configs/upernet_r50_scsa_ade20k.py --shape 512 512
"""

import argparse

import scsa_mm  # noqa: F401  (registers the attention)
from scsa_mm.analysis.complexity import complexity_of
from scsa_mm.runtime.config import CfgOptions, load_config
from scsa_mm.runtime.errors import UserError, one_line, one_line_errors
from scsa_mm.runtime.plugins import check_plugins


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print parameters and FLOPs of a model', allow_abbrev=False)
    parser.add_argument('config', help='a file, or a name such as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('H', 'W'), help='image size in pixels (default: as it is tested)'
    )
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='change the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_line_errors():
        cfg = load_config(args.config, args.cfg_options)
        check_plugins(cfg)
        try:
            found = complexity_of(cfg, tuple(args.shape) if args.shape else None)
        except Exception as error:  # a model is a stranger: whatever it raises, it cannot be counted
            raise UserError(f'{args.config} cannot be counted: {one_line(error)}') from error
    print(f'image       {found.size[0]} x {found.size[1]}')
    print(f'parameters  {found.parameters:,} ({found.attention:,} in attention)')
    print(f'FLOPs       {found.flops / 1e9:.2f} G (multiply-adds as mmengine counts them)')


if __name__ == '__main__':
    main()
