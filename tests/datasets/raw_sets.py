"""Tiny healthy sets in the trees of the real ones, for tests to damage; each has the two images A and b in training."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from scsa_mm.datasets.classes import EXDARK, FLIR, VISDRONE
from scsa_mm.datasets.conversion import exdark, flir, visdrone, voc
from scsa_mm.datasets.conversion.core import Result, convert

SIZE = (64, 48)


def image_bytes(size=SIZE, kind='JPEG', orientation=None) -> bytes:
    """A picture of noise, large enough to be cut short."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def make_visdrone(root: Path) -> None:
    for split, names in {'train': 'Ab', 'val': 'c'}.items():
        folder = root / f'VisDrone2019-DET-{split}'
        for name in names:
            put(folder / f'images/{name}.jpg', image_bytes())
            put(folder / f'annotations/{name}.txt', '1,2,10,20,1,4,0,0\n')


def make_exdark(root: Path) -> None:
    rows = ['Name | Class | Light | In/Out | Train/Val/Test']
    for name in EXDARK:
        (root / 'ExDark' / name).mkdir(parents=True)
        (root / 'ExDark_Annno' / name).mkdir(parents=True)
    for name, split in {'A': 1, 'b': 1, 'c': 2, 'd': 3}.items():
        rows.append(f'{name}.jpg 9 1 1 {split}')
        put(root / f'ExDark/Dog/{name}.jpg', image_bytes())
        put(root / f'ExDark_Annno/Dog/{name}.jpg.txt', '% bbGt version=3\nDog 1 2 10 20 0 0 0 0 0 0 0\n')
    put(root / exdark.LIST, '\r\n'.join(rows) + '\r\n')


def flir_content(names: str) -> dict:
    images = [{'id': i, 'file_name': f'data/{n}.jpg', 'width': SIZE[0], 'height': SIZE[1]} for i, n in enumerate(names)]
    boxes = [
        {'id': i, 'image_id': i, 'category_id': 3, 'bbox': [1, 2, 10, 20], 'area': 200, 'iscrowd': False}
        for i in range(len(names))
    ]
    categories = [{'id': 1, 'name': 'person'}, {'id': 2, 'name': 'bike'}, {'id': 3, 'name': 'car'}]
    return {'images': images, 'annotations': boxes, 'categories': categories}


def make_flir(root: Path) -> None:
    for split, names in {'train': 'Ab', 'val': 'c'}.items():
        folder = root / flir.FOLDERS[split]
        for name in names:
            put(folder / f'data/{name}.jpg', image_bytes())
        put(folder / 'coco.json', json.dumps(flir_content(names)))


OBJECT = (
    '<object><name>dog</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>11</xmax>'
    '<ymax>22</ymax></bndbox></object>'
)


def xml(name: str, objects: str = OBJECT, size: tuple[int, int] = SIZE) -> str:
    return (
        f'<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height>'
        f'<depth>3</depth></size>{objects}</annotation>'
    )


def make_voc(root: Path) -> None:
    for split, names in {'train': 'Ab', 'val': 'c'}.items():
        put(root / f'ImageSets/Main/{split}.txt', '\n'.join(names) + '\n')
        for name in names:
            put(root / f'JPEGImages/{name}.jpg', image_bytes())
            put(root / f'Annotations/{name}.xml', xml(name))


MAKERS = {'visdrone': make_visdrone, 'exdark': make_exdark, 'flir': make_flir, 'voc': make_voc}


def convert_set(dataset: str, root: Path, overwrite: bool = False, classes: tuple[str, ...] | None = None, **options):
    """Convert in this process, as the tool of this name does."""
    if dataset == 'visdrone':
        splits, names = visdrone.openers(root, options.get('splits'), options.get('keep_ignored', False)), VISDRONE
    elif dataset == 'exdark':
        splits, names = exdark.openers(root), EXDARK
    elif dataset == 'flir':
        names = classes or FLIR
        splits = flir.openers(root, options.get('splits'), names)
    else:
        splits, names = voc.openers(root, options.get('lists'), classes)
    return convert(root, dataset, names, splits, overwrite)


def boxes_of(result: Result) -> list[list[float]]:
    """``[category id, left, top, width, height, iscrowd]`` of all objects."""
    content = json.loads(result.path.read_text())
    return [[a['category_id'], *a['bbox'], a['iscrowd']] for a in content['annotations']]


def found(result: Result) -> dict[str, int]:
    """``'action: kind'`` and count."""
    return {f'{action}: {kind}': count for (action, kind), count in result.findings.counts.items()}
