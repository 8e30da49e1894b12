"""Shapes as coverage maps, in integer arithmetic so that every machine draws the same pixels.

A length is in units of 1/16 pixel; a coverage map holds how many of a pixel's 16 sample points (4 x 4) lie inside, as
uint8 (H, W), and is returned with the window (y, x) of the image that it fills.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

UNIT = 16  # of a pixel's side
SAMPLES = 4  # per pixel's side
FULL = SAMPLES * SAMPLES


@dataclass(frozen=True)
class Pose:
    """Where a shape lies: centre and radius (of the circle around it) in 1/16 pixel, angle in degrees."""

    x: int
    y: int
    radius: int
    angle: int = 0


def _polar(pose: Pose, degrees: float, share: float = 1.0) -> tuple[int, int]:
    """The point at an angle and a share of the radius, in whole units."""
    angle = math.radians(degrees + pose.angle)
    # A little off one half, which 30 degrees hit exactly: there the last bit of a platform's sine would decide.
    return (
        pose.x + math.floor(share * pose.radius * math.sin(angle) + 0.5001),
        pose.y - math.floor(share * pose.radius * math.cos(angle) + 0.5001),
    )


def _inside_convex(points: list[tuple[int, int]], px: np.ndarray, py: np.ndarray) -> np.ndarray:
    """Whether the sample points lie inside a polygon whose corners go clockwise on the screen."""
    inside = np.ones(np.broadcast_shapes(px.shape, py.shape), dtype=bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        inside &= (x1 - x0) * (py - y0) - (y1 - y0) * (px - x0) >= 0
    return inside


def _circle(pose: Pose, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    # A little smaller than the radius, so that a circle and a square of one radius look equally large.
    return (px - pose.x) ** 2 + (py - pose.y) ** 2 <= (pose.radius * 7 // 8) ** 2


def _square(pose: Pose, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    return _inside_convex([_polar(pose, a) for a in (-45, 45, 135, 225)], px, py)


def _triangle(pose: Pose, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    return _inside_convex([_polar(pose, a) for a in (0, 120, 240)], px, py)


def _star(pose: Pose, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    """Five points: each a triangle from the middle's two corners beside it."""
    tips = [_polar(pose, 72 * i) for i in range(5)]
    notches = [_polar(pose, 72 * i + 36, 0.45) for i in range(5)]
    inside = _inside_convex(notches, px, py)
    for i, tip in enumerate(tips):
        inside |= _inside_convex([notches[i - 1], tip, notches[i]], px, py)
    return inside


SHAPES: dict[str, Callable[[Pose, np.ndarray, np.ndarray], np.ndarray]] = {
    'circle': _circle,
    'square': _square,
    'triangle': _triangle,
    'star': _star,
}


def cover(name: str, pose: Pose, height: int, width: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """How much of each pixel a shape covers.

    Args:
        name: One of ``SHAPES``.
        height, width: Of the image, in pixels; what lies outside is cut off.

    Returns:
        The window of the image as (rows, columns), and its coverage map.
    """
    left, top = max((pose.x - pose.radius) // UNIT, 0), max((pose.y - pose.radius) // UNIT, 0)
    right = min((pose.x + pose.radius) // UNIT + 1, width)
    bottom = min((pose.y + pose.radius) // UNIT + 1, height)
    w, h = max(right - left, 0), max(bottom - top, 0)
    # Sample points in the middles of a pixel's 4 x 4 cells.
    step = UNIT // SAMPLES
    px = left * UNIT + step // 2 + step * np.arange(w * SAMPLES, dtype=np.int64)[None, :]
    py = top * UNIT + step // 2 + step * np.arange(h * SAMPLES, dtype=np.int64)[:, None]
    inside = SHAPES[name](pose, px, py)
    covered = inside.reshape(h, SAMPLES, w, SAMPLES).sum(axis=(1, 3), dtype=np.uint8)
    return (slice(top, top + h), slice(left, left + w)), covered
