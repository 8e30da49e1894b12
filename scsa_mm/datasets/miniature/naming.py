"""Which class of a real data set a drawn object stands for, and numbers that no two splits share."""

from .scenes import CLASSES, SPLITS, Scene, SceneObject

ClassTable = dict[str, tuple[str, ...]]  # for each shape the classes from its smallest to its largest objects


def class_name(item: SceneObject, scene: Scene, table: ClassTable) -> str:
    """The class by shape and by size, two things that a network can see."""
    names = table[CLASSES[item.label]]
    short = min(scene.image.shape[:2])
    # Scenes have radii from 0.1 to 0.35 of the short side, the lesser of two draws; an extent is about 1.6 radii.
    drawn = (max(item.box[2:]) / (1.6 * short) - 0.1) / 0.25
    # The share of objects that are smaller, so that each name gets about as many.
    rank = 1 - (1 - min(max(drawn, 0.0), 1.0)) ** 2
    return names[min(int(rank * len(names)), len(names) - 1)]


def main_object(scene: Scene) -> SceneObject | None:
    """The largest single object, or else the crowd; None in an empty scene."""
    return max(scene.objects, key=lambda item: (not item.crowd, item.area), default=None)


def alternate(number: int) -> int:
    """0 or 1: each for one of every two images, and for half of those with a crowd and of the empty ones.

    Those come at every eighth and sixteenth number, so that odd and even would not do.
    """
    return number.bit_count() % 2


def serial(split: str, number: int) -> int:
    """A number from 1 for an image; unlike those of other splits, and unchanged when a split grows."""
    return len(SPLITS) * number + SPLITS.index(split) + 1
