"""FLIR ADAS v2, thermal images: COCO's format already, with more names than are labelled.

Source of the format: the set's own files, https://www.flir.com/oem/adas/adas-dataset-form/. Category ids differ between
its releases, so classes are chosen by name. ``file_name`` begins with ``data/`` and is relative to the split's folder.
"""

import difflib
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from ...runtime.errors import UserError
from .coco_json import Object, categories_of, coordinates, load
from .core import Box, ClassNames, Opener, Sample, Source
from .files import IMAGE_SUFFIXES, Damaged, Folder, inside, require_folder
from .findings import Findings, printable

FOLDERS = {'train': 'images_thermal_train', 'val': 'images_thermal_val', 'test': 'video_thermal_test'}
SPLITS = tuple(FOLDERS)
TREE = '{images_thermal_train,images_thermal_val,video_thermal_test}/{coco.json,data/*.jpg} below the data root'


def openers(root: Path, splits: Sequence[str] | None, classes: tuple[str, ...]) -> dict[str, Opener]:
    """A function for each split that opens it.

    Args:
        root: The folder with ``images_thermal_train`` and so on.
        splits: Some of :data:`SPLITS`; None means those that are there.
        classes: Names to keep, in the order of their ids.

    Raises:
        UserError: if a folder or a json is missing, or the classes are no list of different names.
    """
    require_folder(root, TREE)
    chosen = splits or [s for s in SPLITS if (root / FOLDERS[s]).is_dir()]
    if not chosen:
        raise UserError(f'{root} is not FLIR ADAS v2: expected {TREE}')
    for split in chosen:
        folder = root / FOLDERS[split]
        require_folder(folder, TREE)
        if not (folder / 'coco.json').is_file():
            raise UserError(f'{folder / "coco.json"} does not exist; expected {TREE}')
    names = ClassNames(classes)
    return {split: partial(_open, root / FOLDERS[split], names) for split in chosen}


def _open(folder: Path, names: ClassNames, findings: Findings) -> Source:
    path = folder / 'coco.json'
    content = load(path)
    categories = categories_of(content['categories'], path)
    _check_classes(names, categories, path)
    images = _images(content['images'], path, findings)
    objects: dict[object, list[Object]] = {}
    for index, item in enumerate(content['annotations']):
        if not isinstance(item, Object):
            findings.drop('annotation without image_id, category_id or bbox', f'annotation {index}')
        elif not isinstance(item.image_id, int | str) or item.image_id not in images:
            findings.drop('annotation of an image that is not listed', f'annotation {index}')
        else:
            objects.setdefault(item.image_id, []).append(item)
    del content
    folders: dict[str, Folder] = {}

    def read(item: tuple[str, object]) -> Sample:
        name, image_id, declared = item
        parent = PurePosixPath(inside(name)).parent
        if not (folder / parent).is_dir():
            raise Damaged('image that is missing')
        if str(parent) not in folders:
            folders[str(parent)] = Folder(folder / parent, IMAGE_SUFFIXES)
        stem = PurePosixPath(name).stem
        found = folders[str(parent)].find(stem)
        if found is None:
            raise Damaged('image that is missing')
        if found != PurePosixPath(name).name:
            findings.mend('image whose name has another letter case or suffix than in the json', name)
        boxes = [
            _box(item, f'{name}, object {i}', categories, names, findings)
            for i, item in enumerate(objects.get(image_id, ()), start=1)
        ]
        file_name = (PurePosixPath(folder.name) / parent / found).as_posix()
        return Sample(file_name, [box for box in boxes if box], declared)

    return Source([(name, image_id, size) for image_id, (name, size) in images.items()], read, drawn_on='shown')


def _check_classes(names: ClassNames, categories: dict[int, str], path: Path) -> None:
    declared = {name.strip().lower(): name for name in categories.values()}
    for name in names.labels:
        if name.lower() not in declared:
            near = difflib.get_close_matches(name.lower(), declared, n=3) or list(declared)[:5]
            hint = ', '.join(declared[n] for n in near)
            raise UserError(f'{path} has no class {name!r}; it has {printable(hint)}, ...')


def _images(found: list, path: Path, findings: Findings) -> dict[object, tuple[str, tuple[int, int]]]:
    images: dict[object, tuple[str, tuple[int, int]]] = {}
    names: set[str] = set()
    for index, item in enumerate(found):
        image_id, name = (item.get('id'), item.get('file_name')) if isinstance(item, dict) else (None, None)
        if not isinstance(image_id, int | str) or not isinstance(name, str):
            findings.drop('image without id or file_name', f'image {index}')
            continue
        if image_id in images:
            raise UserError(f'{path}: image id {printable(str(image_id))} is there twice')
        if name in names:
            findings.drop('image that is listed twice, with the annotations of its second id', name)
            continue
        names.add(name)
        size = item.get('width'), item.get('height')
        images[image_id] = name, size if all(isinstance(v, int) for v in size) else (0, 0)
    return images


def _box(item: Object, place: str, categories: dict[int, str], names: ClassNames, findings: Findings) -> Box | None:
    name = categories.get(item.category_id) if isinstance(item.category_id, int) else None
    if name is None:
        findings.drop('annotation of a category that is not declared', place)
        return None
    label = names.find(name, place, findings)
    if label is None:
        return None
    values = coordinates(item.bbox)
    if values is None:
        findings.drop('box that is not four numbers', place)
        return None
    # Some of the set's files have a bool here; True == 1.
    if item.iscrowd not in (0, 1):
        findings.drop('annotation whose iscrowd is neither 0 nor 1', place)
        return None
    return Box(label, *values, place, crowd=bool(item.iscrowd))
