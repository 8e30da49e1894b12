#!/usr/bin/env python
"""Count the images and objects of a data set, see whether all are there, and draw some of them.

python tools/check_dataset.py data/VisDrone2019
"""

import argparse
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scsa_mm.datasets.checking import READERS, Split, detect, read, sample
from scsa_mm.datasets.contact_sheet import draw_sheet
from scsa_mm.runtime.errors import UserError, one_line_errors

DRAWN = 8  # images in a picture


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Check a data set and draw some of it', allow_abbrev=False)
    parser.add_argument('root', type=Path, metavar='DIR', help='its root, e.g. data/VisDrone2019')
    parser.add_argument('--dataset', choices=list(READERS), help='its format (default: the one its tree shows)')
    parser.add_argument('--out', type=Path, metavar='DIR', help='for the pictures (default: work_dirs/check/NAME)')
    return parser.parse_args()


def split_table(splits: list[Split]) -> Table:
    table = Table(title='splits', title_justify='left')
    for name, justify in (('split', 'left'), ('images', 'right'), ('published', 'right'), ('objects', 'right')):
        table.add_column(name, justify=justify)
    table.add_column('ignored', justify='right')
    table.add_column('unusable images', justify='right')
    for split in splits:
        published = ''
        if split.published:
            number, is_verified = split.published
            published = f'{number:,}' + ('' if is_verified else ' (unverified)')
            published += ' =' if number == split.images else f' ({split.images - number:+,})'
        numbers = split.counts.total(), split.ignored, split.unusable
        table.add_row(Text(split.name), f'{split.images:,}', published, *(f'{n:,}' for n in numbers))
    return table


def class_table(splits: list[Split]) -> Table:
    table = Table(title='objects by class', title_justify='left')
    table.add_column('class')
    for split in splits:
        table.add_column(Text(split.name), justify='right')
    for name in dict.fromkeys(name for split in splits for name in split.counts):
        table.add_row(Text(name), *(f'{split.counts[name]:,}' for split in splits))
    return table


def check(args: argparse.Namespace) -> int:
    """Print and draw; returns the number of images that cannot be used."""
    dataset = args.dataset or detect(args.root)
    splits = read(args.root, dataset)
    console = Console()
    console.print(Text(f'{args.root}: {dataset}'))
    console.print(class_table(splits))
    console.print(split_table(splits))
    for split in splits:
        if split.findings.counts:
            console.print(split.findings.table(f'{split.name}: what was met'))
    out = args.out or Path('work_dirs/check') / args.root.resolve().name
    for split in splits:
        path = out / f'{split.name.replace(" ", "_")}.png'
        items = sample(split, DRAWN)
        drawn = draw_sheet(path, f'{args.root.resolve().name}, {split.name}', items, list(split.counts))
        print(f'{path}: {drawn} of {split.images:,} images')
        for _ in range(len(items) - drawn):
            split.lose_image('image that cannot be decoded', 'see the picture')
    return sum(split.unusable for split in splits)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = parse_args()
    with one_line_errors():
        try:
            unusable = check(args)
        except KeyboardInterrupt:
            raise UserError('stopped') from None
        except OSError as error:
            raise UserError(f'{error.filename or args.root} cannot be read or written: {error.strerror}') from error
        if unusable:
            print(f'{unusable:,} images cannot be used: see above', file=sys.stderr)
            sys.exit(1)


if __name__ == '__main__':
    main()
