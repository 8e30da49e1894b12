"""What a data set on disk holds: images and objects of each split and class, and whether all of it is there."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from ..runtime.errors import UserError
from .conversion import exdark, flir, visdrone, voc
from .conversion.coco_json import Object, categories_of, coordinates, load
from .conversion.files import Damaged, Folder, inside, require_folder
from .conversion.findings import Findings, printable
from .conversion.pictures import look

# Images that the sets' publishers state. True: read in the set's own pages or files; False: from memory, unverified.
PUBLISHED = {
    'visdrone': {'train': (6471, True), 'val': (548, True), 'test-dev': (1610, False)},
    'exdark': {'train': (3000, True), 'val': (1800, True), 'test': (2563, True)},
    'flir': {'train': (10742, False), 'val': (1144, False), 'test': (3749, False)},
    'coco': {'train2017': (118287, True), 'val2017': (5000, True)},
    'ade20k': {'training': (20210, True), 'validation': (2000, True)},
    'VOC2007': {'trainval': (5011, True), 'test': (4952, True)},
    'VOC2012': {'trainval': (11540, True)},
}
ADE20K_CLASSES = 150
ADE20K_FOLDER = 'ADEChallengeData2016'  # what the archive unpacks to
NOT_THERE = 'image that is missing'


class Labelled(NamedTuple):
    """An image to draw: with ``boxes`` (class name, left, top, width, height in pixels) or a png of ``labels``."""

    path: Path
    boxes: list[tuple[str, float, float, float, float]]
    labels: Path | None = None


class Split:
    """Counts of one split; an object of ADE20K is a class in an image."""

    def __init__(self, name: str, classes: list[str], published: tuple[int, bool] | None) -> None:
        self.name = name
        self.published = published
        self.images = 0
        self.counts = Counter(dict.fromkeys(classes, 0))
        self.ignored = 0
        self.unusable = 0
        self.findings = Findings()
        self.labelled: list[Labelled] = []

    def lose_image(self, kind: str, place: str) -> None:
        """Count an image that cannot be trained on, because of itself or of its annotation."""
        self.unusable += 1
        self.findings.drop(kind, place)


def detect(root: Path) -> str:
    """The name of the set whose tree ``root`` has.

    Raises:
        UserError: if it is none of them.
    """
    require_folder(root, 'the root of a data set')
    signs = {
        'visdrone': [f'VisDrone2019-DET-{split}' for split in visdrone.SPLITS],
        'exdark': ['ExDark', exdark.LIST],
        'flir': list(flir.FOLDERS.values()),
        'voc': ['JPEGImages', 'VOC2007', 'VOC2012'],
        'ade20k': [ADE20K_FOLDER, 'images/training', 'images/validation'],
    }
    for name, folders in signs.items():
        if any((root / folder).exists() for folder in folders):
            return name
    if any((root / 'annotations').glob('instances_*.json')):
        return 'coco'
    raise UserError(f'{root} has the tree of none of {", ".join(READERS)}; say which it is with --dataset')


def read(root: Path, dataset: str) -> list[Split]:
    """Count what is in a data set.

    Raises:
        UserError: if files that the whole depends on are missing or damaged, or it is not converted yet.
    """
    require_folder(root, 'the root of a data set')
    splits = list(READERS[dataset](root))
    if not splits:
        raise UserError(f'{root} has no split of {dataset}')
    return splits


def _converted(root: Path, dataset: str) -> Iterator[Split]:
    order = list(PUBLISHED[dataset])
    files = sorted((root / 'coco').glob('*.json'), key=lambda p: order.index(p.stem) if p.stem in order else len(order))
    if not files:
        raise UserError(f'{root} is not converted: python tools/dataset_converters/{dataset}.py {root}')
    for path in files:
        yield _coco_split(path, root, path.stem, PUBLISHED[dataset].get(path.stem))


def _coco(root: Path) -> Iterator[Split]:
    for path in sorted((root / 'annotations').glob('instances_*.json')):
        name = path.stem.removeprefix('instances_')
        yield _coco_split(path, root / name, name, PUBLISHED['coco'].get(name))


def _coco_split(path: Path, images_root: Path, name: str, published: tuple[int, bool] | None) -> Split:
    content = load(path)
    categories = categories_of(content['categories'], path)
    split = Split(name, list(categories.values()), published)
    boxes: dict[object, list[tuple[str, float, float, float, float]]] = {}
    sizes: dict[object, tuple[float, float]] = {}
    for index, image in enumerate(track(content['images'], description=name, console=Console(stderr=True))):
        try:
            image_id, file_name, size = _image(image)
            if image_id in sizes:
                raise Damaged('image id that is there twice')
            sizes[image_id] = size
            file = images_root / inside(file_name)
            split.images += 1
            if not os.path.isfile(file):
                raise Damaged(NOT_THERE)
            split.labelled.append(Labelled(file, boxes.setdefault(image_id, [])))
        except Damaged as damage:
            split.lose_image(str(damage), f'image {index} of {path.name}: {_name(image)}')
    for index, item in enumerate(content['annotations']):
        try:
            category, box, crowd, image_id = _object(item, categories, sizes)
        except Damaged as damage:
            split.findings.drop(str(damage), f'annotation {index} of {path.name}')
            continue
        split.ignored += crowd
        split.counts[category] += not crowd
        boxes.setdefault(image_id, []).append((category, *box))
    return split


def _name(image: object) -> str:
    return str(image.get('file_name')) if isinstance(image, dict) else ''


def _image(image: object) -> tuple[object, str, tuple[float, float]]:
    found = [image.get(k) for k in ('id', 'file_name', 'width', 'height')] if isinstance(image, dict) else [None] * 4
    if not isinstance(found[0], int | str) or not isinstance(found[1], str):
        raise Damaged('image without id or file_name')
    if not all(type(v) in (int, float) and v > 0 for v in found[2:]):
        raise Damaged('image without width or height')
    return found[0], found[1], (found[2], found[3])


def _object(
    item: object, categories: dict[int, str], sizes: dict[object, tuple[float, float]]
) -> tuple[str, tuple[float, ...], bool, object]:
    if not isinstance(item, Object):
        raise Damaged('annotation without image_id, category_id or bbox')
    if not isinstance(item.image_id, int | str) or item.image_id not in sizes:
        raise Damaged('annotation of an image that is not listed')
    if not isinstance(item.category_id, int) or item.category_id not in categories:
        raise Damaged('annotation of a category that is not declared')
    box = coordinates(item.bbox)
    if box is None:
        raise Damaged('box that is not four numbers')
    width, height = sizes[item.image_id]
    if box[2] <= 0 or box[3] <= 0:
        raise Damaged('box of no area')
    # COCO's own boxes exceed their images by parts of a pixel.
    if box[0] < -1 or box[1] < -1 or box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1:
        raise Damaged('box that leaves the image')
    return categories[item.category_id], box, bool(item.iscrowd), item.image_id


def _voc(root: Path) -> Iterator[Split]:
    years = [root / year for year in ('VOC2007', 'VOC2012') if (root / year).is_dir()]
    for folder in years or [root]:
        published = PUBLISHED.get(folder.resolve().name, {})
        lists, classes = voc.openers(folder, None, None)
        for name, opener in lists.items():
            split = Split(f'{folder.name} {name}', list(classes), published.get(name))
            source = opener(split.findings)
            for item in track(source.items, description=split.name, console=Console(stderr=True)):
                split.images += 1
                try:
                    sample = source.read(item)
                    look(folder / sample.file_name)
                except Damaged as damage:
                    split.lose_image(str(damage), item)
                    continue
                split.ignored += sum(box.crowd for box in sample.boxes)
                split.counts.update(classes[box.label] for box in sample.boxes if not box.crowd)
                boxes = [(classes[b.label], b.left, b.top, b.width, b.height) for b in sample.boxes]
                split.labelled.append(Labelled(folder / sample.file_name, boxes))
            yield split


def _ade20k(root: Path) -> Iterator[Split]:
    root = root / ADE20K_FOLDER if (root / ADE20K_FOLDER).is_dir() else root
    names = _ade20k_names()
    for name in ('training', 'validation'):
        if not (root / 'images' / name).is_dir():
            continue
        images = Folder(root / 'images' / name, ('.jpg',))
        labels = Folder(root / 'annotations' / name, ('.png',))
        split = Split(name, names, PUBLISHED['ade20k'][name])
        for stem in labels.stems():
            if images.find(stem, fold_case=False) is None:
                split.findings.drop('labels without image', f'{stem}.png')
        for stem in track(images.stems(), description=name, console=Console(stderr=True)):
            split.images += 1
            image = images.path / images.find(stem, fold_case=False)
            try:
                found = labels.find(stem, fold_case=False)
                if found is None:
                    raise Damaged('image without labels')
                split.counts.update(names[i - 1] for i in _label_values(labels.path / found, image) if i)
            except Damaged as damage:
                split.lose_image(str(damage), image.name)
                continue
            split.labelled.append(Labelled(image, [], labels.path / found))
        yield split


def _ade20k_names() -> list[str]:
    from mmseg.datasets import ADE20KDataset  # seconds of import that no other set needs

    return list(ADE20KDataset.METAINFO['classes'])


def _label_values(path: Path, image: Path) -> list[int]:
    picture = look(image)
    if look(path).stored != picture.shown:
        raise Damaged('labels of another size than their image')
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
        raise Damaged('labels that are no png of one channel and 8 bits')
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=1)).tolist()
    if values[-1] > ADE20K_CLASSES:
        raise Damaged(f'labels above {ADE20K_CLASSES}')
    return values


READERS: dict[str, Callable[[Path], Iterator[Split]]] = {
    'visdrone': lambda root: _converted(root, 'visdrone'),
    'exdark': lambda root: _converted(root, 'exdark'),
    'flir': lambda root: _converted(root, 'flir'),
    'voc': _voc,
    'coco': _coco,
    'ade20k': _ade20k,
}


def sample(split: Split, count: int) -> list[Labelled]:
    """Some images of a split, evenly spaced among those with labels."""
    candidates = [item for item in split.labelled if item.boxes or item.labels] or split.labelled
    if len(candidates) <= count:
        return candidates
    return [candidates[i * len(candidates) // count] for i in range(count)]


def title_of(item: Labelled) -> str:
    """What stands above a drawn image."""
    return printable(item.path.name, 40)
