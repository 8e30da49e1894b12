"""Pictures in files, colour uint8 (H, W, 3) in RGB order or grey uint8 (H, W)."""

from pathlib import Path

import cv2
import numpy as np

JPEG_QUALITY = 95


def write_png(path: Path, image: np.ndarray) -> None:
    """Raises OSError if the file cannot be written."""
    _write(path, '.png', image, cv2.IMWRITE_PNG_COMPRESSION, 6)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """The same whatever the spelling of the path's extension. Raises OSError if the file cannot be written."""
    _write(path, '.jpg', image, cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)


def _write(path: Path, kind: str, image: np.ndarray, *options: int) -> None:
    # imencode and not imwrite, which only returns False when a disk is full.
    done, data = cv2.imencode(kind, image[:, :, ::-1] if image.ndim == 3 else image, list(options))
    if not done:
        raise OSError(f'{path} could not be encoded as {kind[1:].upper()}')
    path.write_bytes(data.tobytes())
