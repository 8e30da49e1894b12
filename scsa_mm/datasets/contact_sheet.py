"""A picture of some annotated images of a split, to see whether boxes and labels are where they should be."""

import math
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .checking import Labelled, title_of

COLUMNS = 4
MAX_NAMED = 25  # boxes in an image whose classes can still be read
NAME_HEIGHT = 0.05  # of the image; a box nearer to the top has its name inside
MAX_SIDE = 1000  # pixels of an image that are kept for its place of some 500
# Golden angle: neighbours in the list of classes get colours far apart.
HUE_STEP = 0.618034


def draw_sheet(path: Path, title: str, items: list[Labelled], classes: list[str]) -> int:
    """Write a PNG with the images and their boxes or labels; returns how many could be drawn.

    Args:
        path: Replaced if it is there.
        title: Stands above all.
        items: Drawn in this order.
        classes: All of the set, for one colour each.
    """
    colours = {name: _colour(index) for index, name in enumerate(classes)}
    columns = max(1, min(COLUMNS, len(items)))
    rows = max(1, math.ceil(len(items) / columns))
    figure = Figure(figsize=(5 * columns, 4.4 * rows), layout='constrained')
    figure.suptitle(title, fontsize=16, parse_math=False)
    drawn = 0
    for index, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if index < len(items):
            drawn += _draw(axes, items[index], colours)
    _save(figure, path)
    return drawn


def _colour(index: int) -> tuple[float, float, float]:
    return tuple(hsv_to_rgb((index * HUE_STEP % 1.0, 0.9, 1.0 if index % 2 else 0.8)))


def _luminance(colour: tuple[float, float, float]) -> float:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def _draw(axes: Axes, item: Labelled, colours: dict[str, tuple[float, float, float]]) -> bool:
    axes.set_title(title_of(item), fontsize=9, parse_math=False)
    # In colour and turned as EXIF says, as mmcv hands it to a model.
    image = cv2.imread(str(item.path), cv2.IMREAD_COLOR)
    if image is None:
        axes.text(0.5, 0.5, 'cannot be decoded', ha='center', transform=axes.transAxes)
        return False
    height, width = image.shape[:2]
    small = image[:: max(1, width // MAX_SIDE), :: max(1, width // MAX_SIDE), ::-1]
    axes.imshow(small, extent=(0, width, height, 0))
    if item.labels:
        labels = cv2.imread(str(item.labels), cv2.IMREAD_UNCHANGED)
        palette = np.array([(0, 0, 0), *colours.values()])
        axes.imshow(palette[labels], extent=(0, width, height, 0), alpha=0.6, interpolation='nearest')
    for name, left, top, box_width, box_height in item.boxes:
        colour = colours[name]
        axes.add_patch(Rectangle((left, top), box_width, box_height, fill=False, edgecolor=colour, linewidth=1.2))
        if len(item.boxes) <= MAX_NAMED:
            axes.text(
                *(left, top, name),
                fontsize=6.5,
                color='white' if _luminance(colour) < 0.4 else 'black',
                va='bottom' if top > NAME_HEIGHT * height else 'top',
                parse_math=False,
                clip_on=True,
                bbox=dict(facecolor=colour, alpha=0.75, pad=0.6, linewidth=0),
            )
    return True


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f'.{path.stem}.', suffix='.png', dir=path.parent)
    os.close(handle)
    try:
        figure.savefig(partial, dpi=90)
        os.chmod(partial, 0o644)  # mkstemp's file is for its owner alone
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
