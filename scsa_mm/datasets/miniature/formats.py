"""The formats by name: what writes them, and how large their pictures are."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .ade20k import write_ade20k
from .cifar100 import SIDE, write_cifar100
from .coco import write_coco
from .exdark import write_exdark
from .flir import write_flir
from .imagenet import write_imagenet
from .scenes import Scene
from .visdrone import write_visdrone
from .voc import write_voc

TWO = ('train', 'val')
THREE = ('train', 'val', 'test')


@dataclass(frozen=True)
class Format:
    """How a data set is written.

    Attributes:
        write: Takes an empty folder and the scenes by split.
        splits: Of the scenes that ``write`` takes; there are as many to test as to validate.
        size: Width and height of the pictures in pixels, unless another is asked for.
        drawn_at: Size of the scenes, for a format whose pictures have one size only, smaller than scenes can be.
    """

    write: Callable[[Path, Mapping[str, Iterable[Scene]]], None]
    splits: tuple[str, ...] = TWO
    size: tuple[int, int] = (160, 128)
    drawn_at: tuple[int, int] | None = None


FORMATS = {
    'ade20k': Format(write_ade20k, size=(128, 128)),
    'cifar100': Format(write_cifar100, size=(SIDE, SIDE), drawn_at=(2 * SIDE, 2 * SIDE)),
    'coco': Format(write_coco),
    'exdark': Format(write_exdark, THREE),
    'flir': Format(write_flir, THREE),
    'imagenet': Format(write_imagenet, size=(96, 80)),
    'visdrone': Format(write_visdrone, THREE),
    'voc': Format(write_voc, THREE),
}
