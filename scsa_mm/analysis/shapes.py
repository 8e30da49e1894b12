"""The feature maps on which operators are timed: those of ResNet-50's four stages."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..runtime.errors import UserError

CHANNELS = (64, 128, 256, 512)  # where attention stands in a bottleneck: before its last convolution
IMAGES = {'detection': (800, 1344), 'segmentation': (512, 512), 'classification': (224, 224)}
GIVEN = 'given shapes'
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


@dataclass(frozen=True)
class Case:
    """What one operator is timed on.

    Args:
        group: The name under which shapes are summed up.
        shape: (N, C, H, W).
        dtype: A key of ``DTYPES``.
        channels_last: The memory format.
    """

    group: str
    shape: tuple[int, int, int, int]
    dtype: str = 'float32'
    channels_last: bool = False

    @property
    def shape_text(self) -> str:
        return ' x '.join(map(str, self.shape))

    @property
    def memory_format(self) -> str:
        return 'channels_last' if self.channels_last else 'contiguous'

    @property
    def bytes(self) -> int:
        """Of one map."""
        n, c, h, w = self.shape
        return n * c * h * w * DTYPES[self.dtype].itemsize


def stages(image: str, batch: int) -> list[tuple[int, int, int, int]]:
    """The maps of the four stages for a key of ``IMAGES``."""
    h, w = IMAGES[image]
    return [(batch, c, h // (4 << i), w // (4 << i)) for i, c in enumerate(CHANNELS)]


def group_name(image: str, batch: int) -> str:
    return f'{image}, batch {batch}'


def cases(
    images: Sequence[str],
    batches: Sequence[int],
    shapes: Sequence[Sequence[int]],
    dtypes: Sequence[str],
    channels_last: bool,
) -> list[Case]:
    """Every shape in every dtype; the shapes are those given, or else those of the stages.

    Raises:
        UserError: if a shape is not four positive numbers, or a batch less than 1.
    """
    if min(batches, default=1) < 1:
        raise UserError(f'--batch is at least 1, got {min(batches)}')
    for shape in shapes:
        if len(shape) != 4 or min(shape) < 1:
            raise UserError(f'--shape is N C H W, all at least 1; got {" ".join(map(str, shape))}')
    grouped = [(GIVEN, tuple(shape)) for shape in shapes]
    if not grouped:
        grouped = [(group_name(i, b), shape) for i in images for b in batches for shape in stages(i, b)]
    return [Case(group, shape, dtype, channels_last) for dtype in dtypes for group, shape in dict.fromkeys(grouped)]
