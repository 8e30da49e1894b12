"""Scenes in VisDrone2019-DET's format: a text file of comma-separated rows beside each picture.

Its traits come by an image's number: eight images of a split hold all but the box without height.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..classes import VISDRONE
from .naming import ClassTable, class_name, serial
from .pictures import write_jpeg
from .scenes import Scene, SceneObject

FOLDERS = {'train': 'VisDrone2019-DET-train', 'val': 'VisDrone2019-DET-val', 'test': 'VisDrone2019-DET-test-dev'}
CATEGORIES = ('ignored regions', *VISDRONE, 'others')  # the place in the list is the number in the files
TABLE: ClassTable = {
    'circle': ('pedestrian', 'tricycle', 'bus'),
    'square': ('people', 'car', 'truck'),
    'triangle': ('bicycle', 'van'),
    'star': ('motor', 'awning-tricycle'),
}
PERIOD = 8  # images after which the traits come again
CLIP = 4  # images from one drone flight


def write_visdrone(folder: Path, splits: Mapping[str, Iterable[Scene]]) -> None:
    """Write ``FOLDER/VisDrone2019-DET-{train,val,test-dev}/{images/*.jpg,annotations/*.txt}``.

    Args:
        folder: Exists already.
        splits: The scenes of ``train``, ``val`` and ``test``.
    """
    for split, scenes in splits.items():
        images, annotations = folder / FOLDERS[split] / 'images', folder / FOLDERS[split] / 'annotations'
        images.mkdir(parents=True)
        annotations.mkdir()
        for number, scene in enumerate(scenes):
            clip, frame = divmod(number, CLIP)
            name = f'{serial(split, clip):07d}_{500 * frame + 1:05d}_d_{serial(split, number):07d}'
            write_jpeg(images / f'{name}.jpg', scene.image)
            comma = ',' if number % PERIOD == 1 else ''
            rows = [','.join(map(str, row)) + comma + '\n' for row in _rows(number, scene)]
            (annotations / f'{name}.txt').write_text(''.join(rows), encoding='ascii')


def _rows(number: int, scene: Scene) -> Iterator[tuple[int, ...]]:
    """Left, top, width, height, score, category, truncation and occlusion of each row."""
    singles = [item for item in scene.objects if not item.crowd]
    for item in scene.objects:
        if item.crowd:
            yield (*item.box, 0, CATEGORIES.index('ignored regions'), 0, 0)
            continue
        score, category = 1, CATEGORIES.index(class_name(item, scene, TABLE))
        if item is singles[0] and number % PERIOD == 2:
            category = CATEGORIES.index('others')
        if item is singles[-1] and number % PERIOD == 5:
            score = 0
        yield (*item.box, score, category, int(item.at_edge), _occlusion(item, scene))
    if singles and number % PERIOD == 3:
        left, top, width, height = singles[0].box
        flat = (0, height) if number % (2 * PERIOD) == 3 else (width, 0)
        yield (left, top, *flat, 1, CATEGORIES.index('car'), 0, 0)


def _occlusion(item: SceneObject, scene: Scene) -> int:
    """0 none, 1 partial, 2 heavy: by the share of its box that boxes of objects above it overlap."""
    left, top, width, height = item.box
    above = next(i for i, other in enumerate(scene.objects) if other is item) + 1
    overlapped = 0
    for x, y, w, h in (other.box for other in scene.objects[above:]):
        overlapped += max(min(left + width, x + w) - max(left, x), 0) * max(min(top + height, y + h) - max(top, y), 0)
    return 0 if not overlapped else 1 if 2 * overlapped < width * height else 2
