"""A folder in PascalVOC's format, of any classes: an XML file an image, and lists of names.

Source of the format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc. Pixels count from 1 and both corners
belong to the box: one over the whole image is 1, 1, width, height, its left edge xmin - 1 and its right one xmax.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from rich.console import Console
from rich.progress import track

from ...runtime.errors import UserError
from ..classes import VOC
from .core import Box, ClassNames, Opener, Sample, Source
from .files import IMAGE_SUFFIXES, Damaged, Folder, inside, number, numbers, read_bytes, read_text, require_folder
from .findings import Findings

LISTS = ('train', 'val', 'trainval', 'test')
TREE = 'JPEGImages, Annotations and ImageSets/Main/{train,val,test}.txt below the data root'
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def openers(
    root: Path, lists: Sequence[str] | None, classes: tuple[str, ...] | None
) -> tuple[dict[str, Opener], tuple[str, ...]]:
    """A function for each list that opens it, and the classes.

    Args:
        root: The folder with ``JPEGImages``.
        lists: Names of files in ``ImageSets/Main`` without ``.txt``; None means those of :data:`LISTS` that are there.
        classes: Names to keep, in the order of their ids; None means VOC's twenty for VOC2007 and VOC2012, and for
            other folders all that occur in the lists, sorted.

    Raises:
        UserError: if a folder or list is missing, or no class is found.
    """
    for part in ('', 'JPEGImages', 'Annotations', 'ImageSets/Main'):
        require_folder(root / part, TREE)
    main = root / 'ImageSets' / 'Main'
    chosen = lists or [name for name in LISTS if (main / f'{name}.txt').is_file()]
    if not chosen:
        raise UserError(f'{main} has none of {", ".join(f"{name}.txt" for name in LISTS)}; expected {TREE}')
    names = {name: _read_list(main, name) for name in chosen}
    annotations = Folder(root / 'Annotations', ('.xml',))
    if classes is None:
        is_voc = root.resolve().name in ('VOC2007', 'VOC2012')
        classes = VOC if is_voc else _found_classes(annotations, {n: None for found in names.values() for n in found})
    images = Folder(root / 'JPEGImages', IMAGE_SUFFIXES)
    lookup = ClassNames(classes)
    others = {name: {n for o in ('train', 'val', 'test') if o != name for n in names.get(o, ())} for name in names}
    return {
        name: partial(_open, names[name], others[name] if name != 'trainval' else set(), images, annotations, lookup)
        for name in chosen
    }, classes


def _read_list(main: Path, name: str) -> list[str]:
    path = main / f'{name}.txt'
    try:
        if Path(inside(name)).name != name:
            raise Damaged('name of a list with a folder in it')
        if not path.exists():
            raise Damaged('it does not exist')
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except Damaged as damage:
        raise UserError(f'list {path} cannot be used: {damage}') from damage


def _found_classes(annotations: Folder, names: dict[str, None]) -> tuple[str, ...]:
    found: set[str] = set()
    for name in track(list(names), description='classes', console=Console(stderr=True)):
        try:
            path = annotations.find(name)
            objects = _parse(annotations.path / path).findall('object') if path else []
        except Damaged:
            continue  # counted when the list is converted
        found.update(text for text in (_text(item, 'name') for item in objects) if text)
    if not found:
        raise UserError(f'no class is found in {annotations.path}: the XML files of the lists hold no objects')
    return tuple(sorted(found))


def _open(
    listed: list[str],
    elsewhere: set[str],
    images: Folder,
    annotations: Folder,
    names: ClassNames,
    findings: Findings,
) -> Source:
    items: dict[str, None] = {}
    for name in listed:
        if name in items:
            findings.drop('name that is listed twice', name)
        items[name] = None
        if name in elsewhere:
            findings.note('image that is in another of train, val and test too', name)

    def read(name: str) -> Sample:
        image, path = images.find(inside(name)), annotations.find(name)
        if image is None:
            raise Damaged('image that is missing')
        if path is None:
            raise Damaged('image without annotation file')
        root = _parse(annotations.path / path)
        stated = _text(root, 'filename')
        if stated and Path(stated).stem.lower() != name.lower():
            findings.note('annotation that names another image; its own name counts', path)
        objects = enumerate(root.findall('object'), start=1)
        boxes = [_box(item, f'{path}, object {i}', names, findings) for i, item in objects]
        size = [number(_text(root, f'size/{side}')) or 0 for side in ('width', 'height')]
        return Sample(f'JPEGImages/{image}', [box for box in boxes if box], (int(size[0]), int(size[1])))

    return Source(list(items), read, drawn_on='shown')


def _parse(path: Path) -> Element:
    data = read_bytes(path)
    try:
        root = fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise Damaged('XML with a document type or entities, which may be an attack') from None
    except (ParseError, ValueError, LookupError):
        raise Damaged('annotation file that is not XML') from None
    if root.tag != 'annotation':
        raise Damaged('XML that is not an annotation of VOC')
    return root


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or '').strip()


def _box(item: Element, place: str, names: ClassNames, findings: Findings) -> Box | None:
    name = _text(item, 'name')
    if not name:
        findings.drop('object without a name', place)
        return None
    label = names.find(name, place, findings)
    if label is None:
        return None
    if len(item.findall('bndbox')) != 1:
        findings.drop('object without a box, or with several', place)
        return None
    values = numbers(_text(item, f'bndbox/{corner}') for corner in CORNERS)
    if values is None:
        findings.drop('box that is not four numbers', place)
        return None
    xmin, ymin, xmax, ymax = values
    if xmax <= xmin or ymax <= ymin:  # real sets hold points, which the inclusive corners would make a pixel of
        findings.drop('box of no area', place)
        return None
    difficult = _text(item, 'difficult') or '0'
    if difficult not in ('0', '1'):
        findings.drop('object whose difficult is neither 0 nor 1', place)
        return None
    if difficult == '1':
        findings.mend('difficult object, kept as a crowd', place)
    return Box(label, xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1, place, crowd=difficult == '1')
