"""VisDrone-DET's text files: one for each image, a line ``left,top,width,height,score,category,...`` for each box.

Boxes are in pixels. Source of the format: README of github.com/VisDrone/VisDrone2018-DET-toolkit.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..datasets.classes import VISDRONE_OTHERS as OTHERS

__all__ = ['read_annotations', 'read_detections', 'write_detections']

FIELDS = 8  # left, top, width, height, score, category, truncation, occlusion


def read_annotations(path: Path) -> np.ndarray:
    """Ground truth of one image: int64 (N, 6) of left, top, width, height, score and category, in the file's order.

    Score 0 says that the object does not count, category 0 that the box is an ignored region.

    Raises:
        ValueError: naming file and line, if a line is not eight whole numbers, the score not 0 or 1, or the category
            not within 0..11. A comma at the end of a line is accepted, as are empty lines.
    """
    rows = _read(path, int, 'whole numbers')
    for number, row in rows:
        if row[4] not in (0, 1):
            raise ValueError(f'{path}, line {number}: the score of an annotation is 0 or 1, not {row[4]}')
        _check_category(path, number, row[5])
    return np.array([row[:6] for _, row in rows], dtype=np.int64).reshape(-1, 6)


def read_detections(path: Path) -> np.ndarray:
    """Detections in one image: float64 (N, 6) of left, top, width, height, score and category, in the file's order.

    Raises:
        ValueError: naming file and line, if a line is not eight finite numbers or the category not within 0..11.
    """
    rows = _read(path, float, 'finite numbers')
    for number, row in rows:
        if not np.isfinite(row).all():
            raise ValueError(f'{path}, line {number}: expected {FIELDS} finite numbers, got {row}')
        _check_category(path, number, row[5])
    return np.array([row[:6] for _, row in rows], dtype=np.float64).reshape(-1, 6)


def write_detections(path: Path, detections: np.ndarray) -> None:
    """Write detections (N, 6) as the toolkit reads them, in the order given; an image without any has an empty file."""
    # Nine digits give every float32 back.
    lines = [f'{",".join(f"{v:.9g}" for v in row[:5])},{int(row[5])},-1,-1\n' for row in detections]
    path.write_text(''.join(lines), encoding='ascii')


def _read(path: Path, number_type: Callable[[str], float], what: str) -> list[tuple[int, list]]:
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding='utf-8-sig').splitlines(), start=1):
        text = line.strip().removesuffix(',')
        if not text:
            continue
        try:
            row = [number_type(field) for field in text.split(',')]
        except ValueError:
            row = []
        if len(row) != FIELDS:
            raise ValueError(f'{path}, line {number}: expected {FIELDS} {what} between commas, got {line!r}')
        rows.append((number, row))
    return rows


def _check_category(path: Path, number: int, category: float) -> None:
    if category not in range(OTHERS + 1):
        raise ValueError(f'{path}, line {number}: a category is within 0..{OTHERS}, not {category}')
