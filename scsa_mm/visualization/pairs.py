"""Drawing of images in pairs: annotated beside predicted, with boxes, masks, names and scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COLUMNS = 2  # pairs beside each other
DPI = 110
CELL = 3.3  # inches, the width of one image
WIDTH = 480  # pixels to which a smaller image is enlarged
CROWD_COLOUR = (150, 150, 150)
# Told apart also by those who do not see red and green; more classes go round.
COLOURS = (
    (0, 90, 200), (235, 130, 0), (0, 150, 110), (205, 30, 90), (140, 80, 200), (70, 170, 225), (120, 100, 20),
)  # fmt: skip


@dataclass(frozen=True)
class Instances:
    """Objects of an image: boxes (N, 4) as left, top, right, bottom in pixels; labels (N,); masks bool (N, H, W).

    Predictions have scores (N,), annotations may have crowds (N,), bool.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    scores: np.ndarray | None = None
    crowds: np.ndarray | None = None


@dataclass(frozen=True)
class Pair:
    """An image, RGB uint8 (H, W, 3), what is annotated in it and what was predicted."""

    image: np.ndarray
    truth: Instances
    predicted: Instances


def draw_pairs(pairs: Sequence[Pair], classes: Sequence[str], out: str | Path, title: str) -> None:
    """Draw a grid of pairs, two beside each other, as a PNG."""
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    shape = max(p.image.shape[0] / p.image.shape[1] for p in pairs)
    size = (2 * columns * CELL, rows * (CELL * shape + 0.3) + 0.5)
    figure = Figure(figsize=size, dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)  # no global state, no window
    figure.suptitle(title, fontsize=13)
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, pair in enumerate(pairs):
        left = grid[i // columns][i % columns * 2]
        right = grid[i // columns][i % columns * 2 + 1]
        _draw(left, pair.image, pair.truth, classes)
        _draw(right, pair.image, pair.predicted, classes)
        left.set_title('ground truth', fontsize=10)
        right.set_title('predicted', fontsize=10)
    figure.savefig(out, format='png')


def _draw(axes: Axes, image: np.ndarray, instances: Instances, classes: Sequence[str]) -> None:
    scale = max(WIDTH / image.shape[1], 1.0)
    colours = [_colour(instances, i) for i in range(len(instances.labels))]
    axes.imshow(_with_masks(image, instances.masks, colours, scale))
    height, width = image.shape[0] * scale, image.shape[1] * scale
    for i, (x0, y0, x1, y1) in enumerate(instances.boxes * scale):
        colour = tuple(c / 255 for c in colours[i])
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.6))
        to_left = x0 > 0.75 * width  # a name that starts near the right edge would be cut off
        axes.text(
            x1 if to_left else x0,
            # Above the box; below its upper edge where the image ends.
            y0 if y0 > 0.06 * height else y0 + 0.06 * height,
            _name(instances, i, classes),
            color='white',
            fontsize=7,
            horizontalalignment='right' if to_left else 'left',
            verticalalignment='bottom',
            clip_on=True,
            bbox=dict(facecolor=colour, edgecolor='none', pad=1.2, alpha=0.9),
        )


def _colour(instances: Instances, i: int) -> tuple[int, int, int]:
    if instances.crowds is not None and instances.crowds[i]:
        return CROWD_COLOUR
    return COLOURS[int(instances.labels[i]) % len(COLOURS)]


def _name(instances: Instances, i: int, classes: Sequence[str]) -> str:
    name = classes[int(instances.labels[i])]
    if instances.crowds is not None and instances.crowds[i]:
        return f'{name} crowd'
    return name if instances.scores is None else f'{name} {instances.scores[i]:.2f}'


def _with_masks(
    image: np.ndarray, masks: np.ndarray | None, colours: Sequence[tuple[int, int, int]], scale: float
) -> np.ndarray:
    """The image enlarged, each mask tinted half through and outlined in its colour."""
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    for mask, colour in zip(masks if masks is not None else (), colours, strict=False):
        inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        tinted = (large * 0.5 + np.array(colour) * 0.5).astype(np.uint8)
        large = np.where(inside[:, :, None] > 0, tinted, large)
        outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        large = cv2.drawContours(np.ascontiguousarray(large), outlines, -1, colour, 2)
    return large
