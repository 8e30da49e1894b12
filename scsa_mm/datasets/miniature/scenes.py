"""What is drawn: scenes of overlapping shapes, each with its visible mask, the same on every run and machine.

A scene depends on the seed, its split and its number alone, so that more scenes never change the earlier ones.
"""

from dataclasses import dataclass, field

import numpy as np

from .shapes import FULL, SHAPES, UNIT, Pose, cover

CLASSES = tuple(SHAPES)
SPLITS = ('train', 'val', 'test')

MIN_SIDE = 64  # pixels
EMPTY_SHARE = 16  # one scene in so many has no object at all
CROWD_SHARE = 8  # and one in so many has a crowd
MAX_OBJECTS = 6
MIN_VISIBLE = 0.6  # share of an object that others leave uncovered
MIN_AREA = 40  # visible pixels of an object
MIN_CONTRAST = 110  # sum of the differences in red, green and blue


@dataclass(frozen=True)
class SceneObject:
    """One object, or with ``crowd`` a group that is not told apart.

    Attributes:
        label: Index into ``CLASSES``.
        mask: What is visible of it, bool (H, W).
    """

    label: int
    mask: np.ndarray
    crowd: bool = False

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Extent of the visible mask in pixels: left, top, width, height."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1

    @property
    def at_edge(self) -> bool:
        """Whether it touches the image's edge, where a part may be cut off."""
        return bool(self.mask[[0, -1]].any() or self.mask[:, [0, -1]].any())


@dataclass(frozen=True)
class Scene:
    """A picture, RGB uint8 (H, W, 3), and its objects from the lowest to the uppermost."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]


@dataclass
class _Canvas:
    """A scene while it is being drawn; colours are int64 to leave room for sums."""

    image: np.ndarray
    rng: np.random.Generator
    colours: list[np.ndarray]
    objects: list[SceneObject] = field(default_factory=list)
    whole_areas: list[int] = field(default_factory=list)  # of each object, before others covered it

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


def draw_scene(seed: int, split: str, number: int, width: int = 160, height: int = 128) -> Scene:
    """Draw scene ``number`` of a split.

    Args:
        seed: Of the whole set; not negative.
        split: One of ``SPLITS``.
        width, height: In pixels, at least 64 each.

    Raises:
        ValueError: if an argument is not as above.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {", ".join(SPLITS)}, got {split!r}')
    if seed < 0 or number < 0:
        raise ValueError(f'seed and number must not be negative, got {seed=} {number=}')
    if min(width, height) < MIN_SIDE:
        raise ValueError(f'width and height must be at least {MIN_SIDE} pixels, got {width=} {height=}')
    sequence = np.random.SeedSequence((seed, SPLITS.index(split), number))
    canvas = _background(np.random.Generator(np.random.PCG64(sequence)), height, width)
    # By number, not by chance: even a set of a few images has an empty one and a crowd.
    if number % EMPTY_SHARE != EMPTY_SHARE - 1:
        if number % CROWD_SHARE == CROWD_SHARE // 2:
            _add_crowd(canvas)
        wanted = len(canvas.objects) + _integer(canvas.rng, 1, MAX_OBJECTS - len(canvas.objects))
        # The class of the first object goes round, so that a few images have all of them.
        _add_object(canvas, number % len(CLASSES))
        for _ in range(4 * MAX_OBJECTS):
            if len(canvas.objects) >= wanted:
                break
            _add_object(canvas, _integer(canvas.rng, 0, len(CLASSES) - 1))
    noise = canvas.rng.integers(-9, 10, size=canvas.image.shape)
    image = np.clip(canvas.image + noise, 0, 255).astype(np.uint8)
    return Scene(image, tuple(canvas.objects))


def _integer(rng: np.random.Generator, low: int, high: int) -> int:
    """A random whole number from ``low`` to ``high``, both included."""
    return int(rng.integers(low, high + 1))


def _background(rng: np.random.Generator, height: int, width: int) -> _Canvas:
    """A slope between two muted colours with faint stripes, so that not every edge is an object's."""
    first = rng.integers(60, 180, size=3)
    second = np.clip(first + rng.integers(-40, 41, size=3), 40, 200)
    y, x = np.mgrid[:height, :width]
    along = x * _integer(rng, 0, 4) + y * _integer(rng, 1, 4)
    share = (along * 256 // along.max())[:, :, None]
    image = (first * (256 - share) + second * share) // 256
    dx, dy, period = _integer(rng, -3, 3), _integer(rng, -3, 3), _integer(rng, 12, 40)
    stripe = (x * dx + y * dy) // period % 2
    return _Canvas(image + 8 * stripe[:, :, None], rng, colours=[first, second])


def _new_colour(canvas: _Canvas, label: int) -> np.ndarray:
    """A colour of the class that stands out from the background and, if that is easily found, from other objects.

    Each class has its range of hues, as most things have a usual colour: from shape alone a network without
    pretraining would need many more steps.
    """
    rng = canvas.rng
    distance = 360 // len(CLASSES)
    for attempt in range(60):
        hue = distance * label + _integer(rng, -2 * distance // 5, 2 * distance // 5)
        colour = _from_hue(hue % 360, saturation=_integer(rng, 140, 255), value=_integer(rng, 90, 255))
        others = canvas.colours if attempt < 40 else canvas.colours[:2]
        if all(np.abs(colour - other).sum() >= MIN_CONTRAST for other in others):
            break
    canvas.colours.append(colour)
    return colour


def _from_hue(hue: int, saturation: int, value: int) -> np.ndarray:
    """HSV to RGB in whole numbers: hue in degrees, the others up to 255."""
    sector, along = divmod(hue, 60)
    full = 255 * 60
    low = value * (255 - saturation) // 255
    falling = value * (full - saturation * along) // full
    rising = value * (full - saturation * (60 - along)) // full
    channels = (
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    )
    return np.array(channels[sector], dtype=np.int64)


def _pose(canvas: _Canvas, centre: tuple[int, int], radius: int) -> Pose:
    """A pose near ``centre`` (x, y in pixels); the image's edge cuts off a quarter of the radius at most."""
    height, width = canvas.shape
    inside = 3 * radius // 4
    x = min(max(centre[0], inside), width - inside)
    y = min(max(centre[1], inside), height - inside)
    jitter = canvas.rng.integers(0, UNIT, size=2)
    return Pose(x * UNIT + int(jitter[0]), y * UNIT + int(jitter[1]), radius * UNIT, _integer(canvas.rng, -20, 20))


def _add_object(canvas: _Canvas, label: int) -> None:
    """Put one more object on top; nothing happens if it would hide another one or hardly be seen itself."""
    rng = canvas.rng
    height, width = canvas.shape
    short = min(height, width)
    # The lesser of two, so that small objects are more frequent than large ones, as in photographs.
    radius = short // 10 + min(_integer(rng, 0, short // 4) for _ in range(2))
    centre = _integer(rng, 0, width - 1), _integer(rng, 0, height - 1)
    if canvas.objects and _integer(rng, 0, 3) == 0:  # a quarter of them on or beside another one
        left, top, w, h = canvas.objects[_integer(rng, 0, len(canvas.objects) - 1)].box
        centre = left + _integer(rng, 0, w), top + _integer(rng, 0, h)
    pose = _pose(canvas, centre, radius)
    window, covered = cover(CLASSES[label], pose, height, width)
    mask = np.zeros(canvas.shape, dtype=bool)
    mask[window] = covered * 2 >= FULL
    rest = [o.mask & ~mask for o in canvas.objects]
    hides = any(r.sum() < max(MIN_VISIBLE * w, MIN_AREA) for r, w in zip(rest, canvas.whole_areas, strict=True))
    if hides or mask.sum() < MIN_AREA:
        return
    _paint(canvas, window, covered, _new_colour(canvas, label))
    kept = zip(canvas.objects, rest, strict=True)
    canvas.objects = [SceneObject(o.label, r, o.crowd) for o, r in kept] + [SceneObject(label, mask)]
    canvas.whole_areas.append(int(mask.sum()))


def _add_crowd(canvas: _Canvas) -> None:
    """A heap of small shapes of one class, annotated as one region."""
    rng = canvas.rng
    height, width = canvas.shape
    label = _integer(rng, 0, len(CLASSES) - 1)
    spread = min(height, width) // 6
    centre = _integer(rng, spread, width - 1 - spread), _integer(rng, spread, height - 1 - spread)
    mask = np.zeros(canvas.shape, dtype=bool)
    for _ in range(_integer(rng, 9, 14)):
        offset = rng.integers(-spread, spread + 1, size=2)
        pose = _pose(canvas, (centre[0] + int(offset[0]), centre[1] + int(offset[1])), min(height, width) // 22)
        window, covered = cover(CLASSES[label], pose, height, width)
        mask[window] |= covered * 2 >= FULL
        _paint(canvas, window, covered, _new_colour(canvas, label))
    canvas.objects.append(SceneObject(label, mask, crowd=True))
    canvas.whole_areas.append(int(mask.sum()))


def _paint(canvas: _Canvas, window: tuple[slice, slice], covered: np.ndarray, colour: np.ndarray) -> None:
    """Blend a colour in by coverage, lighter at the top than at the bottom."""
    below = canvas.image[window]
    light = np.linspace(14, -14, covered.shape[0]).astype(np.int64)[:, None, None]
    share = covered[:, :, None].astype(np.int64)
    canvas.image[window] = (np.clip(colour + light, 0, 255) * share + below * (FULL - share)) // FULL
