"""Scenes in ExDark's format: dark pictures in folders by class, boxes in bbGt version 3, one list of the splits.

The first five images of a split have five spellings of file extensions, and the sixth has three spellings at once: in
the list, of the picture and of the annotation.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..classes import EXDARK
from .naming import ClassTable, class_name, main_object, serial
from .pictures import write_jpeg, write_png
from .scenes import Scene

TABLE: ClassTable = {
    'circle': ('Bottle', 'Cat', 'People'),
    'square': ('Cup', 'Chair', 'Bus'),
    'triangle': ('Bicycle', 'Dog', 'Boat'),
    'star': ('Motorbike', 'Table', 'Car'),
}
SPLIT_CODES = {'train': 1, 'val': 2, 'test': 3}
LIGHTS = 10  # kinds of light that the list tells apart
EXTENSIONS = ('jpg', 'JPG', 'png', 'JPEG', 'jpeg')  # in turn, and after them an image with three spellings
HEADER = 'Name | Class | Light | In/Out | Train/Val/Test'


def write_exdark(folder: Path, splits: Mapping[str, Iterable[Scene]]) -> None:
    """Write ``FOLDER/ExDark/CLASS/IMAGE``, ``FOLDER/ExDark_Annno/CLASS/IMAGE.txt`` and ``FOLDER/imageclasslist.txt``.

    An image lies in the folder of its largest object's class; boxes of other classes are in its annotation too.

    Args:
        folder: Exists already.
        splits: The scenes of ``train``, ``val`` and ``test``.
    """
    for tree in ('ExDark', 'ExDark_Annno'):
        for name in EXDARK:
            (folder / tree / name).mkdir(parents=True)
    rows = []
    for split, scenes in splits.items():
        for number, scene in enumerate(scenes):
            main = main_object(scene)
            class_folder = class_name(main, scene, TABLE) if main else EXDARK[number % len(EXDARK)]
            listed, picture, annotated = _names(split, number)
            write = write_png if picture.endswith('.png') else write_jpeg
            write(folder / 'ExDark' / class_folder / picture, _dark(scene.image, number))
            annotation = folder / 'ExDark_Annno' / class_folder / f'{annotated}.txt'
            annotation.write_text(_bounding_boxes(scene), encoding='ascii')
            place = number % 2 + 1  # 1 indoor, 2 outdoor
            codes = (EXDARK.index(class_folder) + 1, _light(number), place, SPLIT_CODES[split])
            rows.append(' '.join(map(str, (listed, *codes))))
    lines = '\r\n'.join([HEADER, *sorted(rows)]) + '\r\n'
    (folder / 'imageclasslist.txt').write_bytes(lines.encode('ascii'))


def _names(split: str, number: int) -> tuple[str, str, str]:
    """The image's name in the list, as a file, and in the annotation's name."""
    stem = f'2015_{serial(split, number):05d}'
    kind = number % (len(EXTENSIONS) + 1)
    if kind == len(EXTENSIONS):
        return f'{stem}.JPG', f'{stem}.jpg', f'{stem}.Jpg'
    name = f'{stem}.{EXTENSIONS[kind]}'
    return name, name, name


def _light(number: int) -> int:
    return number % LIGHTS + 1


def _dark(image: np.ndarray, number: int) -> np.ndarray:
    """A sixth to a third of the light is left, by the kind of light."""
    return (image.astype(np.int64) * (_light(number) + LIGHTS) // (6 * LIGHTS)).astype(np.uint8)


def _bounding_boxes(scene: Scene) -> str:
    # Seven more numbers, which the real set leaves at 0: occlusion, visible box, ignore and angle.
    lines = [' '.join(map(str, (class_name(item, scene, TABLE), *item.box, *[0] * 7))) for item in scene.objects]
    return '\n'.join(['% bbGt version=3', *lines]) + '\n'
