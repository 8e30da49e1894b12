#!/usr/bin/env python
"""A folder in PascalVOC's format to COCO json: DIR/coco/LIST.json for each list of names.

python tools/dataset_converters/voc.py data/BCCD --classes RBC,WBC,Platelets
"""

from scsa_mm.datasets.conversion.command import class_list, parser, run
from scsa_mm.datasets.conversion.core import convert
from scsa_mm.datasets.conversion.voc import openers


def main() -> None:
    options = parser('A folder in VOC format to COCO json', 'the folder with JPEGImages, Annotations and ImageSets')
    options.add_argument(
        '--lists',
        nargs='+',
        metavar='NAME',
        help='files in ImageSets/Main, without .txt (default: those of train, val, trainval and test that are there)',
    )
    options.add_argument(
        '--classes',
        type=class_list,
        metavar='NAME,...',
        help='names to keep, in the order of their ids (default: the twenty for VOC2007 and VOC2012; for other '
        'folders all that occur, sorted)',
    )
    args = options.parse_args()

    def work():
        lists, classes = openers(args.root, args.lists, args.classes)
        results = convert(args.root, args.root.resolve().name, classes, lists, args.overwrite)
        print(f'classes = {classes}')
        return results

    run(work)


if __name__ == '__main__':
    main()
