"""Size and EXIF orientation of an image, from its header alone.

mmcv decodes with OpenCV, which turns an image as its EXIF orientation says (JPEG, PNG and WebP alike), so width and
height are those of the turned image here, and boxes that were drawn on the stored pixels are turned with it.
"""

import os
import stat
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .files import Damaged

FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP')
ORIENTATION = 0x0112
# What an image ends with. Cameras and editors append some bytes to it, hence a search in the last ones.
END = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND'}
TAIL = 4096


class Picture(NamedTuple):
    """``width`` and ``height`` are in pixels as stored; ``orientation`` is EXIF's, 1..8, 1 without one."""

    width: int
    height: int
    orientation: int

    @property
    def stored(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as OpenCV loads it."""
        return (self.height, self.width) if self.orientation >= 5 else self.stored


def look(path: Path) -> Picture:
    """Read the header of an image file.

    Raises:
        Damaged: if it is missing, no such image, without pixels, too large for OpenCV, or cut short.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb') as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Damaged('image that is not a regular file')
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # of odd headers; what matters raises
                try:
                    image = Image.open(file, formats=FORMATS)
                except Image.DecompressionBombError:
                    raise Damaged('image of more pixels than can be loaded') from None
                except Exception:  # decoders of damaged files raise anything
                    empty = os.fstat(file.fileno()).st_size == 0
                    raise Damaged('image file that is empty' if empty else 'file that is no image') from None
                picture = Picture(*image.size, _orientation(image))
                end = END.get(image.format)
            if min(picture.stored) < 1:
                raise Damaged('image without pixels')
            if end:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL))
                if end not in file.read(TAIL):
                    raise Damaged('image that is cut short')
            return picture
    except FileNotFoundError:
        raise Damaged('image that is missing') from None
    except OSError as error:
        raise Damaged(f'image that cannot be read: {error.strerror}') from error


def _orientation(image: Image.Image) -> int:
    # Not image.getexif(): it also believes XMP, which OpenCV does not read, and decodes a PNG to look for EXIF.
    data = image.info.get('exif')
    if not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        value = exif.get(ORIENTATION)
    except Exception:  # broken EXIF; OpenCV does not turn such an image either
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn(box: tuple[float, float, float, float], picture: Picture) -> tuple[float, float, float, float]:
    """Edges (left, top, right, bottom) on the stored pixels, as edges on the shown image."""
    left, top, right, bottom = box
    orientation, (width, height) = picture.orientation, picture.stored
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)
