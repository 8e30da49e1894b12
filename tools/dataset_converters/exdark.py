#!/usr/bin/env python
"""ExDark to COCO json: DIR/coco/{train,val,test}.json with the twelve classes, ids 1..12.

python tools/dataset_converters/exdark.py data/ExDark
"""

from scsa_mm.datasets.classes import EXDARK
from scsa_mm.datasets.conversion.command import parser, run
from scsa_mm.datasets.conversion.core import convert
from scsa_mm.datasets.conversion.exdark import openers


def main() -> None:
    args = parser('ExDark to COCO json', 'the folder with ExDark, ExDark_Annno and imageclasslist.txt').parse_args()
    run(lambda: convert(args.root, 'ExDark', EXDARK, openers(args.root), args.overwrite))


if __name__ == '__main__':
    main()
