"""Masks as COCO writes them: polygons along the edges of pixels, or run lengths; both give back exactly the mask."""

import numpy as np

Corner = tuple[int, int]  # x, y in pixels; (0, 0) is the upper left corner of the image


def polygons(mask: np.ndarray) -> list[list[int]]:
    """Outlines of a mask, bool (H, W), as COCO's ``[x, y, x, y, ...]``, one for each connected part.

    COCO fills each outline and has none for holes, so a part with a hole is cut in two, through the hole.
    """
    outlines = _trace(mask)
    hole = next((o for o in outlines if _signed_area(o) < 0), None)
    if hole is None:
        return [[value for corner in outline for value in corner] for outline in outlines]
    cut = (min(x for x, _ in hole) + max(x for x, _ in hole)) // 2
    # A hole one pixel wide has its middle on its own left edge, where a cut would leave it whole.
    cut = max(cut, min(x for x, _ in hole) + 1)
    left, right = mask.copy(), mask.copy()
    left[:, cut:] = False
    right[:, :cut] = False
    return polygons(left) + polygons(right)


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run-length encoding: lengths down the columns, starting with what is outside."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {'size': list(mask.shape), 'counts': [0, *counts] if flat[0] else counts}


def _trace(mask: np.ndarray) -> list[list[Corner]]:
    """Closed lines around the mask, clockwise on the screen (holes the other way), corners only."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # Edges from corner to corner with the mask on their right; where two pixels touch at a corner, two edges start.
    following: dict[Corner, list[Corner]] = {}
    for neighbour, (x0, y0), (x1, y1) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            following.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    lines = []
    while following:
        lines.append(_follow(following))
    return lines


def _follow(following: dict[Corner, list[Corner]]) -> list[Corner]:
    """Take one closed line out of the edges."""
    start = next(iter(following))
    corners: list[Corner] = []
    here, step = start, (0, 0)
    while True:
        ends = following[here]
        # Turning right keeps two pixels apart that touch at a corner only.
        right = (here[0] - step[1], here[1] + step[0])
        end = right if right in ends else ends[0]
        ends.remove(end)
        if not ends:
            del following[here]
        turn = (end[0] - here[0], end[1] - here[1])
        if turn != step:
            corners.append(here)
        here, step = end, turn
        if here == start:
            break
    first = (corners[1][0] - corners[0][0], corners[1][1] - corners[0][1])
    if np.sign(first).tolist() == list(step):  # the line was entered in the middle of a straight stretch
        corners.pop(0)
    return corners


def _signed_area(corners: list[Corner]) -> int:
    """Twice the enclosed area; positive for a line that goes clockwise on the screen."""
    x, y = np.array(corners).T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
