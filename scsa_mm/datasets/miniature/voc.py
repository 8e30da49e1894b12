"""Scenes in PascalVOC's format: an XML file for each picture, and lists of names for the splits."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path

from .naming import ClassTable, alternate, class_name, serial
from .pictures import write_jpeg
from .scenes import Scene, SceneObject

YEARS = ('VOC2007', 'VOC2012')
LISTS = {'train': ('train', 'trainval'), 'val': ('val', 'trainval'), 'test': ('test',)}
ALL_LISTS = ('train', 'val', 'trainval', 'test')
TABLE: ClassTable = {
    'circle': ('bottle', 'person', 'person', 'bird', 'cat', 'dog'),
    'square': ('tvmonitor', 'chair', 'car', 'bus', 'train'),
    'triangle': ('boat', 'pottedplant', 'sheep', 'cow', 'horse'),
    'star': ('bicycle', 'motorbike', 'sofa', 'diningtable', 'aeroplane'),
}
Box = tuple[int, int, int, int]  # left, top, width, height in pixels


def write_voc(folder: Path, splits: Mapping[str, Iterable[Scene]]) -> None:
    """Write ``FOLDER/{VOC2007,VOC2012}/{JPEGImages,Annotations,ImageSets/Main/{train,val,trainval,test}.txt}``.

    Half of a split's images go to each year. Crowds are marked difficult, and people have a ``part``. In each split
    the first image of VOC2012 has coordinates with decimals, as a few of the real one have.

    Args:
        folder: Exists already.
        splits: The scenes of ``train``, ``val`` and ``test``.

    Raises:
        ValueError: if a split has a single image, which would leave a year without any.
    """
    names: dict[str, dict[str, list[str]]] = {
        year: {n: [] for n in ('train', 'val', 'trainval', 'test')} for year in YEARS
    }
    for year in YEARS:
        for part in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
            (folder / year / part).mkdir(parents=True)
    for split, scenes in splits.items():
        for number, scene in enumerate(scenes):
            year = YEARS[alternate(number)]
            name = _name(year, serial(split, number))
            write_jpeg(folder / year / 'JPEGImages' / f'{name}.jpg', scene.image)
            decimals = year == 'VOC2012' and number == 1
            tree = _annotation(year, name, scene, decimals)
            (folder / year / 'Annotations' / f'{name}.xml').write_text(tree, encoding='utf-8')
            for listed in LISTS[split]:
                names[year][listed].append(name)
        if not all(names[year][split] for year in YEARS):
            raise ValueError(f'each of {" and ".join(YEARS)} needs an image: a split of voc has at least 2')
    for year, lists in names.items():
        for listed, members in lists.items():
            text = ''.join(f'{name}\n' for name in sorted(members))
            (folder / year / 'ImageSets/Main' / f'{listed}.txt').write_text(text, encoding='ascii')


def _name(year: str, number: int) -> str:
    return f'{number:06d}' if year == 'VOC2007' else f'2008_{number:06d}'


def _annotation(year: str, name: str, scene: Scene, decimals: bool) -> str:
    height, width, depth = scene.image.shape
    root = ET.Element('annotation')
    _add(root, folder=year, filename=f'{name}.jpg')
    _add(ET.SubElement(root, 'source'), database=f'drawn shapes in the format of {year}')
    _add(ET.SubElement(root, 'size'), width=width, height=height, depth=depth)
    _add(root, segmented=0)
    for item in scene.objects:
        _add_object(root, class_name(item, scene, TABLE), item, decimals)
    ET.indent(root, '\t')
    return ET.tostring(root, encoding='unicode') + '\n'


def _add_object(root: ET.Element, name: str, item: SceneObject, decimals: bool) -> None:
    element = ET.SubElement(root, 'object')
    _add(element, name=name, pose='Unspecified', truncated=int(item.at_edge), difficult=int(item.crowd))
    _add_box(element, item.box, decimals)
    if name == 'person':
        left, top, width, height = item.box
        part = ET.SubElement(element, 'part')
        _add(part, name='head')
        _add_box(part, (left + width // 3, top, max(width // 3, 1), max(height // 3, 1)), decimals)


def _add_box(parent: ET.Element, box: Box, decimals: bool) -> None:
    """The first and the last pixel of a box, counted from 1."""
    left, top, width, height = box
    corners: dict[str, object] = {'xmin': left + 1, 'ymin': top + 1, 'xmax': left + width, 'ymax': top + height}
    if decimals:
        corners |= {'xmin': f'{left + 1}.25', 'ymin': f'{top + 1}.25'}
    _add(ET.SubElement(parent, 'bndbox'), **corners)


def _add(parent: ET.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ET.SubElement(parent, tag).text = str(text)
