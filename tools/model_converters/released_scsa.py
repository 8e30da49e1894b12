#!/usr/bin/env python
"""Convert a checkpoint of the released SCSA code (ResNetSCSA, MobileNetV2SCSA) to scsa_mm's names, or back.

python tools/model_converters/released_scsa.py resnet50_scsa.pth work_dirs/resnet50_scsa.pth
python tools/model_converters/released_scsa.py work_dirs/resnet50_scsa.pth resnet50_released.pth --reverse

Only names change. The options of the attention are in no weights: build the model with those that the weights were
trained with (released `head_num`, `group_kernel_sizes`, `gate_layer`, `attn_drop_ratio`: here `num_heads`,
`kernel_sizes`, `gate`, `attn_drop`).
"""

import argparse
import os
from pathlib import Path

import torch

import scsa_mm  # noqa: F401  (lets torch.load read mmengine's checkpoints)
from scsa_mm.backbones.released import convert_checkpoint
from scsa_mm.runtime.checkpoints import read_checkpoint
from scsa_mm.runtime.errors import UserError, one_line, one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint of the released SCSA code to scsa_mm's names, or back", allow_abbrev=False
    )
    parser.add_argument('src', help='checkpoint of mmengine, or a state dict alone')
    parser.add_argument('dst', type=Path, help='file to write')
    parser.add_argument('--reverse', action='store_true', help="from scsa_mm's names to the released ones")
    parser.add_argument('--overwrite', action='store_true', help='replace the file if it is there')
    return parser.parse_args()


def check_writable(dst: Path, overwrite: bool) -> None:
    """Raise UserError before any work if the file could not be written."""
    if not dst.parent.is_dir():
        raise UserError(f'folder {dst.parent} does not exist')
    if dst.is_dir():
        raise UserError(f'{dst} is a folder; name a file')
    if dst.exists() and not overwrite:
        raise UserError(f'{dst} exists; --overwrite replaces it')


def write(checkpoint: dict, dst: Path) -> None:
    """Save under another name and rename, so that ``dst`` is never half a file."""
    part = dst.with_name(f'.{dst.name}.{os.getpid()}.part')
    try:
        torch.save(checkpoint, part)
        part.replace(dst)
    except (OSError, RuntimeError) as error:
        raise UserError(f'{dst} cannot be written: {one_line(error)}') from error
    finally:
        part.unlink(missing_ok=True)


def main() -> None:
    args = parse_args()
    with one_line_errors():
        check_writable(args.dst, args.overwrite)
        checkpoint = read_checkpoint(args.src)
        try:
            converted, lines = convert_checkpoint(checkpoint, reverse=args.reverse)
        except ValueError as error:
            raise UserError(f'{args.src} cannot be converted: {one_line(error)}') from error
        write(converted, args.dst)
        print('\n'.join([*lines, f'written: {args.dst}']))


if __name__ == '__main__':
    main()
