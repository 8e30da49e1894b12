#!/usr/bin/env python
"""Write a small dataset of drawn shapes in the format of a real one; the same files on every run.

python tools/make_miniature.py --dataset coco --out data/miniature_coco

DIR gets what the real data set has in its folder under data/, and miniature.json. A data set with a test split gets as
many test images as held-out ones.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from scsa_mm.datasets.miniature.formats import FORMATS
from scsa_mm.datasets.miniature.scenes import MIN_SIDE, Scene, draw_scene
from scsa_mm.datasets.miniature.store import is_stored, store
from scsa_mm.runtime.errors import UserError, one_line, one_line_errors


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal()) or min(int(width), int(height)) < MIN_SIDE:
        raise argparse.ArgumentTypeError(f'size is WIDTHxHEIGHT, at least {MIN_SIDE}x{MIN_SIDE} pixels, got {text!r}')
    return int(width), int(height)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a number of images is at least 1, got {text!r}')
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'a seed is a whole number, 0 or more, got {text!r}')
    return int(text)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write a small dataset of drawn shapes', allow_abbrev=False)
    parser.add_argument('--dataset', required=True, choices=sorted(FORMATS), help='the format')
    parser.add_argument('--out', required=True, type=Path, metavar='DIR', help='a folder that is absent or empty')
    parser.add_argument('--train', type=_count, default=240, metavar='N', help='images to train on (default: 240)')
    parser.add_argument('--val', type=_count, default=48, metavar='N', help='images held out (default: 48)')
    parser.add_argument('--seed', type=_seed, default=0, help='another seed draws other scenes (default: 0)')
    sizes = ', '.join('{} {}x{}'.format(name, *FORMATS[name].size) for name in sorted(FORMATS))
    parser.add_argument('--size', type=_size, metavar='WxH', help=f'pixels (default: {sizes})')
    args = parser.parse_args()
    chosen = FORMATS[args.dataset]
    if args.size and chosen.drawn_at:
        parser.error('{} has pictures of {}x{} pixels: leave --size out'.format(args.dataset, *chosen.size))
    args.size = args.size or chosen.size
    return args


def scenes(args: argparse.Namespace, split: str) -> Iterator[Scene]:
    """The scenes of a split, drawn one by one, with a progress bar on stderr."""
    width, height = FORMATS[args.dataset].drawn_at or args.size
    numbers = range(args.train if split == 'train' else args.val)
    for number in track(numbers, description=f'{split} images', console=Console(stderr=True)):
        yield draw_scene(args.seed, split, number, width, height)


def _counts(args: argparse.Namespace) -> str:
    if 'test' in FORMATS[args.dataset].splits:
        return f'{args.train} training, {args.val} validation and {args.val} test images'
    return f'{args.train} training and {args.val} held-out images'


def make(args: argparse.Namespace) -> None:
    parameters = dict(
        dataset=args.dataset, train=args.train, val=args.val, seed=args.seed, width=args.size[0], height=args.size[1]
    )
    try:
        if is_stored(args.out, parameters):
            print(f'{args.out} holds this set already: {_counts(args)}')
            return
        chosen = FORMATS[args.dataset]
        splits = {split: scenes(args, split) for split in chosen.splits}
        store(args.out, parameters, lambda folder: chosen.write(folder, splits))
    except ValueError as error:
        raise UserError(one_line(error)) from error
    except OSError as error:
        raise UserError(f'{args.out} cannot be written: {error.strerror} ({error.filename})') from error
    print(f'{args.out}: {_counts(args)} of {args.size[0]}x{args.size[1]} pixels')


def main() -> None:
    # Ended by a signal as by Ctrl-C: what was written so far is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = parse_args()
    with one_line_errors():
        try:
            make(args)
        except KeyboardInterrupt:
            raise UserError('stopped; nothing was left behind') from None


if __name__ == '__main__':
    main()
