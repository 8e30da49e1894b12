"""VisDrone-DET's own protocol: what its MATLAB toolkit, in the version of 2019, prints for a result.

Source: github.com/VisDrone/VisDrone2018-DET-toolkit (no licence), read for how it counts; nothing is copied. Arrays of
boxes are (N, 6): left, top, width, height in pixels, score, category, as :mod:`.visdrone_files` reads them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ..datasets.classes import VISDRONE as CLASSES
from ..datasets.classes import VISDRONE_IGNORED_REGION as IGNORED_REGION

__all__ = ['drop_in_ignored_regions', 'evaluate']

MAX_DETECTIONS = (1, 10, 100, 500)  # in an image; AP is at the last
IOU_THRESHOLDS = 0.5 + 0.05 * np.arange(10)

TRUE, FALSE, NEITHER = 1, 0, -1  # what a detection is


def evaluate(
    annotations: Sequence[np.ndarray], detections: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """The toolkit's seven percentages: AP, AP50 and AP75 at 500 detections in an image, AR1, AR10, AR100 and AR500.

    Known for differing from COCO's numbers: a class enters the mean once for each image that contains it; AP is the
    area under the whole precision envelope and not a mean over 101 recalls; ground truth of score 0 makes no detection
    false, yet counts as an object to be found; the first k detections in an image are those of the array's order,
    across all classes; boxes are dropped by :func:`drop_in_ignored_regions`, before the first k are taken.

    Args:
        annotations: For each image (N, 6), the score 0 or 1, with the ignored regions (category 0).
        detections: For each image (M, 6), the best first.
        sizes: For each image its height and width in pixels.

    Returns:
        All NaN if no object of the ten classes is left in any image.

    Raises:
        ValueError: if the three sequences differ in length.
    """
    if not len(annotations) == len(detections) == len(sizes):
        raise ValueError(
            'annotations, detections and sizes have one entry for each image, but their lengths are '
            f'{len(annotations)}, {len(detections)}, {len(sizes)}'
        )
    images = [drop_in_ignored_regions(a, d, size) for a, d, size in zip(annotations, detections, sizes, strict=True)]
    precision = np.zeros((len(CLASSES), len(IOU_THRESHOLDS)))
    recall = np.zeros((len(MAX_DETECTIONS), len(CLASSES), len(IOU_THRESHOLDS)))
    images_with = np.zeros(len(CLASSES))
    for index in range(len(CLASSES)):
        objects = [a[a[:, 5] == index + 1] for a, _ in images]
        images_with[index] = sum(len(a) > 0 for a in objects)
        if not images_with[index]:
            continue
        for k, most in enumerate(MAX_DETECTIONS):
            found = [d[:most][d[:most, 5] == index + 1] for _, d in images]
            curve = _recall_and_precision(objects, found)
            recall[k, index] = curve[0].max(axis=1, initial=0)
        precision[index] = _area_under_envelope(*curve)
    if not images_with.any():
        return dict.fromkeys(_names(), float('nan'))
    weights = images_with / images_with.sum()
    values = [weights @ v for v in (precision.mean(axis=1), precision[:, 0], precision[:, 5], *recall.mean(axis=2))]
    return {name: 100 * float(value) for name, value in zip(_names(), values, strict=True)}


def drop_in_ignored_regions(
    annotations: np.ndarray, detections: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Annotations without the ignored regions, and both without what lies at least half inside these.

    The share is counted in pixels, at the positions that the toolkit uses: sides rounded half up and at least 1; a
    region covers its right and lower edge pixels also, a box leaves out its left and upper ones; what lies outside
    the image belongs to a box's area but to no region.

    Args:
        annotations: (N, 6).
        detections: (M, 6).
        size: Height and width of the image in pixels.
    """
    is_region = annotations[:, 5] == IGNORED_REGION
    regions, objects = annotations[is_region], annotations[~is_region]
    if not len(regions):
        return objects, detections
    return tuple(boxes[_share_inside(boxes[:, :4], regions[:, :4], size) < 0.5] for boxes in (objects, detections))


def _names() -> Iterator[str]:
    yield from ('AP', 'AP50', 'AP75')
    yield from (f'AR{k}' for k in MAX_DETECTIONS)


def _share_inside(boxes: np.ndarray, regions: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The share of each box, (N, 4), that the union of the regions, (R, 4), covers; (N,)."""
    limit = np.array([size[1], size[0]])
    # A region or box is a half-open range of pixels (first, last], counted from 1, in x and in y.
    regions = np.maximum(regions, 1)
    first = regions[:, :2] - 1
    last = np.minimum(regions[:, :2] + regions[:, 2:], limit)
    sides = np.maximum(np.floor(boxes + 0.5), 1)
    start = np.minimum(sides[:, :2], limit)
    stop = np.minimum(start + sides[:, 2:], limit)

    # Between neighbouring edges of regions all pixels are alike: a coarse grid instead of the image.
    x, y = (np.unique(np.concatenate([first[:, axis], last[:, axis]])) for axis in (0, 1))
    in_x = (first[:, :1] <= x[:-1]) & (x[1:] <= last[:, :1])  # (R, columns)
    in_y = (first[:, 1:] <= y[:-1]) & (y[1:] <= last[:, 1:])  # (R, rows)
    covered = (in_x[:, :, None] & in_y[:, None, :]).any(axis=0)
    wide, high = (
        (np.minimum(stop[:, axis, None], edge[1:]) - np.maximum(start[:, axis, None], edge[:-1])).clip(min=0)
        for axis, edge in ((0, x), (1, y))
    )
    return ((wide @ covered) * high).sum(axis=1) / (sides[:, 2] * sides[:, 3])


def _recall_and_precision(objects: list[np.ndarray], found: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection of one class in all images, the best first: twice (T, D)."""
    scores, kinds = [], []
    for annotated, detected in zip(objects, found, strict=True):
        if len(detected):
            detected = detected[np.argsort(-detected[:, 4], kind='stable')]
            scores.append(detected[:, 4])
            kinds.append(_match(annotated, detected))
    if not scores:
        return np.zeros((len(IOU_THRESHOLDS), 0)), np.zeros((len(IOU_THRESHOLDS), 0))
    kind = np.concatenate(kinds, axis=1)[:, np.argsort(-np.concatenate(scores), kind='stable')]
    true, false = (np.cumsum(kind == k, axis=1) for k in (TRUE, FALSE))
    return true / max(1, sum(map(len, objects))), true / np.maximum(1, true + false)


def _match(objects: np.ndarray, detections: np.ndarray) -> np.ndarray:
    """What each detection is at each threshold, (T, D); objects and detections of one class in one image.

    Each detection, the best first, takes the object of score 1 that it overlaps most among those not taken. One that
    takes none and lies in an object of score 0 is neither true nor false; there the overlap is the share of the
    detection, and any number may lie in one object.
    """
    counts = objects[:, 4] == 1
    thresholds = IOU_THRESHOLDS[:, None]
    common, object_areas, detection_areas = _areas(objects[:, :4], detections[:, :4])
    with np.errstate(divide='ignore', invalid='ignore'):
        inside = np.where(common > 0, common / detection_areas[:, None], 0)[:, ~counts].max(axis=1, initial=0)
        union = detection_areas[:, None] + object_areas - common
        # From the last, because of objects overlapped alike the toolkit takes the last.
        overlap = np.where(common > 0, common / union, 0)[:, counts][:, ::-1]

    kind = np.where(inside >= thresholds, NEITHER, FALSE)
    free = np.ones((len(IOU_THRESHOLDS), overlap.shape[1]), dtype=bool)
    for d in np.flatnonzero(overlap.max(axis=1, initial=0) >= IOU_THRESHOLDS[0]):
        eligible = np.where(free & (overlap[d] >= thresholds), overlap[d], 0)
        best = eligible.argmax(axis=1)
        hit = np.flatnonzero(eligible.any(axis=1))
        free[hit, best[hit]] = False
        kind[hit, d] = TRUE
    return kind


def _areas(objects: np.ndarray, detections: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas in square pixels: common to detection and object (D, G), of the objects (G,), of the detections (D,)."""
    start = np.maximum(detections[:, None, :2], objects[:, :2])
    stop = np.minimum((detections[:, :2] + detections[:, 2:])[:, None], objects[:, :2] + objects[:, 2:])
    common = (stop - start).clip(min=0).prod(axis=2)
    return common, objects[:, 2] * objects[:, 3], detections[:, 2] * detections[:, 3]


def _area_under_envelope(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Area under the precision that is still reached at each recall or above; both (T, D), returns (T,)."""
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (np.diff(recall, axis=1, prepend=0) * envelope).sum(axis=1)
