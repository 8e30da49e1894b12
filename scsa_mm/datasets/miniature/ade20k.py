"""Scenes in ADE20K's format: a label map beside each picture, 1 to 150 for classes and 0 for everything else."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from .pictures import write_jpeg, write_png
from .scenes import CLASSES, Scene

FOLDERS = {'train': ('training', 'train'), 'val': ('validation', 'val')}  # folder, part of a file's name
OTHER = 0
SHAPE_LABELS = {'circle': 120, 'square': 42, 'triangle': 115, 'star': 150}  # ball, box, tent, flag
BACKGROUND_LABELS = (1, 10, 3)  # a reddish one is wall, a greenish one grass, a bluish one sky


def write_ade20k(folder: Path, splits: Mapping[str, Iterable[Scene]]) -> None:
    """Write ``FOLDER/ADEChallengeData2016/{images/*/*.jpg,annotations/*/*.png}``, ``*`` = ``training``, ``validation``.

    Args:
        folder: Exists already.
        splits: The scenes of ``train`` and ``val``.
    """
    for split, scenes in splits.items():
        place, part = FOLDERS[split]
        images = folder / 'ADEChallengeData2016/images' / place
        annotations = folder / 'ADEChallengeData2016/annotations' / place
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for number, scene in enumerate(scenes, start=1):
            name = f'ADE_{part}_{number:08d}'
            write_jpeg(images / f'{name}.jpg', scene.image)
            write_png(annotations / f'{name}.png', label_map(scene))


def label_map(scene: Scene) -> np.ndarray:
    """ADE20K's label of each pixel, uint8 (H, W); crowds are among the rest, 0."""
    background = np.ones(scene.image.shape[:2], dtype=bool)
    for item in scene.objects:
        background &= ~item.mask
    channel = int(scene.image[background].sum(axis=0, dtype=np.int64).argmax())
    labels = np.full(background.shape, BACKGROUND_LABELS[channel], dtype=np.uint8)
    for item in scene.objects:
        labels[item.mask] = OTHER if item.crowd else SHAPE_LABELS[CLASSES[item.label]]
    return labels
