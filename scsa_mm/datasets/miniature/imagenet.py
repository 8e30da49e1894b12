"""Scenes in ImageNet-1K's format, with a few of its thousand classes: the class of the largest object.

Training pictures lie in folders by class and validation pictures in one folder, as in the archives. The lists in
``meta`` give the labels: without them MMPretrain counts the folders and wants a thousand.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from .naming import main_object
from .pictures import write_jpeg
from .scenes import CLASSES, Scene

# WordNet number and place among the thousand classes: balloon, television, stupa, starfish.
SHAPE_CLASSES = {
    'circle': ('n02782093', 417),
    'square': ('n04404412', 851),
    'triangle': ('n04346328', 832),
    'star': ('n02317335', 327),
}
EMPTY_CLASS = ('n04590129', 905)  # window shade


def write_imagenet(folder: Path, splits: Mapping[str, Iterable[Scene]]) -> None:
    """Write ``FOLDER/train/CLASS/*.JPEG``, ``FOLDER/val/*.JPEG`` and ``FOLDER/meta/{train,val}.txt``.

    Args:
        folder: Exists already.
        splits: The scenes of ``train`` and ``val``.
    """
    (folder / 'meta').mkdir()
    for split, scenes in splits.items():
        (folder / split).mkdir()
        lines = []
        for number, scene in enumerate(scenes, start=1):
            main = main_object(scene)
            synset, label = SHAPE_CLASSES[CLASSES[main.label]] if main else EMPTY_CLASS
            name = f'{synset}/{synset}_{number}.JPEG' if split == 'train' else f'ILSVRC2012_val_{number:08d}.JPEG'
            path = folder / split / name
            path.parent.mkdir(exist_ok=True)
            write_jpeg(path, scene.image)
            lines.append(f'{name} {label}\n')
        (folder / 'meta' / f'{split}.txt').write_text(''.join(sorted(lines)), encoding='ascii')
