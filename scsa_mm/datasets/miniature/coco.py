"""Scenes in COCO's format and tree: pictures as PNG, polygons for objects, run lengths for crowds."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from .outlines import polygons, run_lengths
from .pictures import write_png
from .scenes import CLASSES, Scene, SceneObject


def write_coco(folder: Path, splits: Mapping[str, Iterable[Scene]]) -> None:
    """Write ``FOLDER/{split}2017/*.png`` and ``FOLDER/annotations/instances_{split}2017.json``.

    Args:
        folder: Exists already.
        splits: The scenes of ``train`` and of ``val``.
    """
    (folder / 'annotations').mkdir()
    for split, scenes in splits.items():
        (folder / f'{split}2017').mkdir()
        images, annotations = [], []
        for number, scene in enumerate(scenes, start=1):
            name = f'{number:012d}.png'
            write_png(folder / f'{split}2017' / name, scene.image)
            height, width = scene.image.shape[:2]
            images.append({'id': number, 'file_name': name, 'width': width, 'height': height})
            for item in scene.objects:
                annotations.append({'id': len(annotations) + 1, 'image_id': number, **_annotation(item)})
        instances = {
            'info': {'description': f'drawn shapes, {split}', 'version': '1.0'},
            'licenses': [],
            'images': images,
            'annotations': annotations,
            'categories': [{'id': i, 'name': n, 'supercategory': 'shape'} for i, n in enumerate(CLASSES, start=1)],
        }
        path = folder / 'annotations' / f'instances_{split}2017.json'
        path.write_text(json.dumps(instances, separators=(',', ':')) + '\n', encoding='utf-8')


def _annotation(item: SceneObject) -> dict:
    return {
        'category_id': item.label + 1,
        'segmentation': run_lengths(item.mask) if item.crowd else polygons(item.mask),
        'area': item.area,
        'bbox': list(item.box),
        'iscrowd': int(item.crowd),
    }
