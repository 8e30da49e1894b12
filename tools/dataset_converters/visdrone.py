#!/usr/bin/env python
"""VisDrone2019-DET to COCO json: DIR/coco/{train,val,test-dev}.json with the ten classes, ids 1..10.

python tools/dataset_converters/visdrone.py data/VisDrone2019
"""

from scsa_mm.datasets.classes import VISDRONE
from scsa_mm.datasets.conversion.command import parser, run
from scsa_mm.datasets.conversion.core import convert
from scsa_mm.datasets.conversion.visdrone import SPLITS, openers


def main() -> None:
    options = parser('VisDrone2019-DET to COCO json', 'the folder with VisDrone2019-DET-train and so on')
    options.add_argument('--splits', nargs='+', choices=SPLITS, help='default: those that are there')
    options.add_argument(
        '--ignored',
        choices=['drop', 'crowd'],
        default='drop',
        help='objects of score 0: left out, or kept as crowds, on which a detection does not count (default: drop)',
    )
    args = options.parse_args()

    def work():
        splits = openers(args.root, args.splits, args.ignored == 'crowd')
        return convert(args.root, 'VisDrone2019-DET', VISDRONE, splits, args.overwrite)

    run(work)


if __name__ == '__main__':
    main()
