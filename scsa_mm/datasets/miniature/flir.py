"""Scenes in FLIR ADAS v2's format: thermal pictures of one channel, and boxes in COCO's form with FLIR's categories."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from .naming import ClassTable, alternate, class_name
from .pictures import write_jpeg
from .scenes import Scene

FOLDERS = {'train': 'images_thermal_train', 'val': 'images_thermal_val', 'test': 'video_thermal_test'}
# In the order of their numbers from 1; the order is FLIR's, the numbers are unverified.
_CATEGORIES = (
    'person,bike,car,motor,airplane,bus,train,truck,boat,light,hydrant,sign,parking meter,bench,bird,cat,dog,deer,'
    'sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,'
    'kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,'
    'banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,'
    'toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,stroller,rider,scooter,vase,'
    'scissors,face,other vehicle,license plate'
)
CATEGORIES = tuple(_CATEGORIES.split(','))
# The real set labels fifteen of them, people, cars and bikes most often.
TABLE: ClassTable = {
    'circle': ('person', 'light', 'person', 'dog'),
    'square': ('car', 'sign', 'car', 'bus', 'truck'),
    'triangle': ('bike', 'hydrant', 'bike', 'motor', 'train'),
    'star': ('person', 'skateboard', 'scooter', 'stroller', 'other vehicle'),
}
CLIP = 8  # images from one video
ID_LENGTH = 17
ID_LETTERS = '23456789ABCDEFGHJKLMNPQRSTWXYZabcdefghijkmnopqrstuvwxyz'


def write_flir(folder: Path, splits: Mapping[str, Iterable[Scene]]) -> None:
    """Write ``FOLDER/{images_thermal_train,images_thermal_val,video_thermal_test}/{coco.json,data/*.jpg}``.

    Half of the images have ``iscrowd`` as true or false where the others have 1 or 0.

    Args:
        folder: Exists already.
        splits: The scenes of ``train``, ``val`` and ``test``.
    """
    for split, scenes in splits.items():
        (folder / FOLDERS[split] / 'data').mkdir(parents=True)
        images, annotations = [], []
        for number, scene in enumerate(scenes):
            name = _name(split, number)
            write_jpeg(folder / FOLDERS[split] / name, _thermal(scene))
            height, width = scene.image.shape[:2]
            images.append({'id': number + 1, 'file_name': name, 'width': width, 'height': height})
            for item in scene.objects:
                left, top, w, h = item.box
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': number + 1,
                        'category_id': CATEGORIES.index(class_name(item, scene, TABLE)) + 1,
                        'bbox': [left, top, w, h],
                        'area': w * h,
                        'segmentation': [[left, top, left, top + h, left + w, top + h, left + w, top]],
                        'iscrowd': item.crowd if alternate(number) else int(item.crowd),
                    }
                )
        instances = {
            'info': {'description': f'drawn shapes, {split}'},
            'licenses': [],
            'categories': [{'id': i, 'name': name} for i, name in enumerate(CATEGORIES, start=1)],
            'images': images,
            'annotations': annotations,
        }
        text = json.dumps(instances, separators=(',', ':')) + '\n'
        (folder / FOLDERS[split] / 'coco.json').write_text(text, encoding='utf-8')


def _name(split: str, number: int) -> str:
    clip, frame = divmod(number, CLIP)
    return f'data/video-{_id(f"{split} {clip}")}-frame-{30 * frame:06d}-{_id(f"{split} image {number}")}.jpg'


def _id(text: str) -> str:
    """Letters and digits that look random and depend on the text alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return ''.join(ID_LETTERS[byte % len(ID_LETTERS)] for byte in digest[:ID_LENGTH])


def _thermal(scene: Scene) -> np.ndarray:
    """Warm objects on a cold background, uint8 (H, W); patterns and noise stay from the colours."""
    grey = scene.image.astype(np.int64).sum(axis=2) // 3 * 2 // 5
    for item in scene.objects:
        grey[item.mask] += 130
    return grey.astype(np.uint8)
