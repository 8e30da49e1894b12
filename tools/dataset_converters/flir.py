#!/usr/bin/env python
"""FLIR ADAS v2, thermal, to a COCO json of few classes: DIR/coco/{train,val,test}.json.

python tools/dataset_converters/flir.py data/FLIR_ADAS_v2
"""

from scsa_mm.datasets.classes import FLIR, FLIR_LABELLED
from scsa_mm.datasets.conversion.command import class_list, parser, run
from scsa_mm.datasets.conversion.core import convert
from scsa_mm.datasets.conversion.flir import SPLITS, openers


def main() -> None:
    options = parser('FLIR ADAS v2, thermal, to COCO json', 'the folder with images_thermal_train and so on')
    options.add_argument('--splits', nargs='+', choices=SPLITS, help='default: those that are there')
    options.add_argument(
        '--classes',
        type=class_list,
        default=FLIR,
        metavar='NAME,...',
        help=f'names to keep, in the order of their ids (default: {",".join(FLIR)}); "labelled" stands for the '
        f'{len(FLIR_LABELLED)} that have boxes: {", ".join(FLIR_LABELLED)}',
    )
    args = options.parse_args()
    classes = FLIR_LABELLED if args.classes == ('labelled',) else args.classes

    def work():
        splits = openers(args.root, args.splits, classes)
        return convert(args.root, 'FLIR ADAS v2 thermal', classes, splits, args.overwrite)

    run(work)


if __name__ == '__main__':
    main()
