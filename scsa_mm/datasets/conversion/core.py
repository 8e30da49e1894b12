"""What all converters share: from the boxes that a format's reader found to a checked COCO json."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import track

from ...runtime.errors import UserError
from .files import Damaged
from .findings import Findings, printable
from .pictures import Picture, look, turn
from .writer import CocoWriter, complete_files

MIN_SIDE = 1.0  # pixels; mmdet passes over what is thinner without a word


class Box(NamedTuple):
    """Pixels of the annotated image; ``label`` counts from 0 in the classes; ``place`` is where it was read."""

    label: int
    left: float
    top: float
    width: float
    height: float
    place: str
    crowd: bool = False


class Sample(NamedTuple):
    """``file_name`` is relative to the data root; ``declared`` is the (width, height) that the annotation states."""

    file_name: str
    boxes: list[Box]
    declared: tuple[int, int] | None = None


class Source(NamedTuple):
    """A split: ``read`` makes a sample of an item, or raises Damaged.

    ``drawn_on`` says what boxes are relative to if an image has an EXIF orientation and neither the declared size nor
    the boxes tell: ``'stored'`` pixels (labelled with MATLAB, which does not turn images) or the image as ``'shown'``.
    """

    items: Sequence
    read: Callable[[object], Sample]
    drawn_on: str


class Result(NamedTuple):
    """What a split's json holds, and what was met on the way."""

    path: Path
    images: int
    boxes: int
    findings: Findings


# Opens a split when its turn comes; what it finds while opening is counted with the rest.
Opener = Callable[[Findings], Source]


class ClassNames:
    """From a class name in an annotation to its place in a list of classes, in any letter case.

    Raises:
        UserError: if the list is empty or two of its names differ by letter case only.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.labels = {name: label for label, name in enumerate(classes)}
        self.folded = {name.lower(): label for label, name in enumerate(classes)}
        if not self.labels or len(self.folded) != len(classes):
            raise UserError(f'classes must be different names, at least one; got {printable(", ".join(classes))!r}')

    def find(self, name: str, place: str, findings: Findings) -> int | None:
        """The label, or None for a class that is not in the list."""
        label = self.labels.get(name)
        if label is not None:
            return label
        label = self.folded.get(name.strip().lower())
        if label is None:
            findings.drop(f'box of class {printable(name, 40)!r}, not in the list', place)
        else:
            findings.mend('class name in other letter case', place)
        return label


def convert(
    root: Path, title: str, classes: tuple[str, ...], openers: Mapping[str, Opener], overwrite: bool
) -> dict[str, Result]:
    """Write ``ROOT/coco/SPLIT.json`` for each split: all of them, or none.

    Args:
        root: The data root; images are named relative to it, and nothing else in it is written to.
        title: The set's name, for ``info`` in the json.
        classes: Get the category ids 1..N.
        openers: A function for each split that opens it.
        overwrite: Replace files that are there.

    Raises:
        UserError: if the data are not what they should be, or nothing of a split is left.
    """
    names = [f'{split}.json' for split in openers]
    results = {}
    with complete_files(root / 'coco', names, overwrite) as folder:
        for split, opener in openers.items():
            findings = Findings()
            source = opener(findings)
            if not source.items:
                raise UserError(f'{split} of {root} has no images')
            writer = CocoWriter(folder / f'{split}.json')
            try:
                for item in track(source.items, description=f'{escape(split)} images', console=Console(stderr=True)):
                    _convert_one(root, source, item, writer, findings)
                _check_rest(split, len(source.items), writer, findings)
                writer.finish(classes, {'description': f'{title}, {split}', 'findings': findings.as_dict()})
            finally:
                writer.close()
            results[split] = Result(root / 'coco' / f'{split}.json', writer.images, writer.boxes, findings)
    return results


def _check_rest(split: str, asked: int, writer: CocoWriter, findings: Findings) -> None:
    if not writer.images or not writer.boxes:
        what = 'box' if writer.images else 'image'
        reason = findings.first() or 'the annotations hold none'
        raise UserError(f'{split}: no {what} is left of {asked} images: {reason}')


def _convert_one(root: Path, source: Source, item: object, writer: CocoWriter, findings: Findings) -> None:
    place = item if isinstance(item, str) else str(item[0])
    try:
        sample = source.read(item)
        place = sample.file_name
        if place in writer.names:
            raise Damaged('image that is there already under another name')
        picture = look(root / sample.file_name)
        _check_declared(sample, picture, findings)
    except Damaged as damage:
        findings.drop(str(damage), place)
        return
    turned = picture.orientation > 1 and _is_on_stored(sample, picture, source.drawn_on)
    if turned and sample.boxes:
        findings.mend('image whose boxes are turned as its EXIF orientation says', place)
    elif picture.orientation > 1:
        findings.note('image that EXIF turns, with boxes drawn on it turned', place)
    boxes = _fitting_boxes(sample.boxes, picture, turned, findings)
    writer.add(sample.file_name, picture.shown, boxes)
    if not boxes:
        findings.note('image without boxes', place)


def _fitting_boxes(
    found: list[Box], picture: Picture, turned: bool, findings: Findings
) -> list[tuple[int, tuple[float, ...], bool]]:
    """Category id, (left, top, width, height) on the shown image, and crowd, of the boxes that can be used."""
    width, height = picture.shown
    boxes = []
    seen = set()
    for box in found:
        if box.width <= 0 or box.height <= 0:
            findings.drop('box of no area', box.place)
            continue
        edges = box.left, box.top, box.left + box.width, box.top + box.height
        if turned:
            edges = turn(edges, picture)
        left, top, right, bottom = max(edges[0], 0), max(edges[1], 0), min(edges[2], width), min(edges[3], height)
        if left >= right or top >= bottom:
            findings.drop('box outside the image', box.place)
            continue
        if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
            findings.drop('box thinner than a pixel', box.place)
            continue
        key = box.label, left, top, right, bottom
        if key in seen:
            findings.drop('box that is there twice', box.place)
            continue
        seen.add(key)
        if (left, top, right, bottom) != edges:
            findings.mend('box cut at the border of the image', box.place)
        boxes.append((box.label + 1, (left, top, right - left, bottom - top), box.crowd))
    return boxes


def _check_declared(sample: Sample, picture: Picture, findings: Findings) -> None:
    """Boxes of an image of another size would all be at wrong places."""
    if sample.declared is None or min(sample.declared) < 1:
        if sample.declared is not None:
            findings.note('annotation that states no size', sample.file_name)
    elif sample.declared not in (picture.stored, picture.shown):
        if sample.declared[::-1] != picture.stored:
            raise Damaged('image of another size than its annotation states')
        findings.note('annotation that states width and height the wrong way round', sample.file_name)


def _is_on_stored(sample: Sample, picture: Picture, default: str) -> bool:
    """Whether boxes were drawn on the stored pixels: by the stated size, else by where they fit, else by default."""
    stored, shown = picture.stored, picture.shown
    if stored != shown:
        if sample.declared in (stored, shown):
            return sample.declared == stored
        fits = [all(b.left + b.width <= w and b.top + b.height <= h for b in sample.boxes) for w, h in (stored, shown)]
        if fits[0] != fits[1]:
            return fits[0]
    return default == 'stored'
