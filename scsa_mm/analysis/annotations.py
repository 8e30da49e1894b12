"""Made-up annotations, so that a model can be timed in training without a data set."""

from collections.abc import Iterator

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from ..runtime.errors import UserError

OBJECTS = 8  # in an image; COCO has seven on average


def annotations(scope: str, model: dict, name: str, x: Tensor) -> list[BaseDataElement]:
    """One data sample an image, the same for the same ``x``: a few boxes with masks, or a map of classes.

    Args:
        scope: Of the config, which says the task: ``'mmdet'`` or ``'mmseg'``.
        model: Its config, which says how many classes there are.
        name: What the user calls it.
        x: The images (N, 3, H, W).

    Raises:
        UserError: if there are none for such a model.
    """
    make = dict(mmdet=_boxes, mmseg=_classes).get(scope)
    classes = min(_numbers_of_classes(model), default=0)
    if make is None or not classes:
        raise UserError(f'{name}: whole training steps are measured for detectors of mmdet and segmentors of mmseg')
    size = tuple(x.shape[2:])
    about = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    return [make(dict(about, img_id=i), size, classes, generator) for i in range(len(x))]


def _numbers_of_classes(node: object) -> Iterator[int]:
    if isinstance(node, dict):
        if isinstance(node.get('num_classes'), int):
            yield node['num_classes']
        for value in node.values():
            yield from _numbers_of_classes(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _numbers_of_classes(value)


def _boxes(about: dict, size: tuple[int, int], classes: int, generator: torch.Generator) -> BaseDataElement:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    h, w = size
    extent = torch.tensor((w, h), dtype=torch.float)
    sides = extent * (0.1 + 0.4 * torch.rand(OBJECTS, 2, generator=generator))
    corners = (extent - sides) * torch.rand(OBJECTS, 2, generator=generator)
    boxes = torch.cat([corners, corners + sides], dim=1)
    masks = torch.zeros(OBJECTS, h, w, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1 : y2 + 1, x1 : x2 + 1] = 1
    instances = InstanceData(
        bboxes=boxes,
        labels=torch.randint(classes, (OBJECTS,), generator=generator),
        masks=BitmapMasks(masks.numpy(), h, w),
    )
    return DetDataSample(metainfo=about, gt_instances=instances, ignored_instances=InstanceData(bboxes=boxes[:0]))


def _classes(about: dict, size: tuple[int, int], classes: int, generator: torch.Generator) -> BaseDataElement:
    from mmseg.structures import SegDataSample

    classes_map = torch.randint(classes, (1, *size), generator=generator)
    return SegDataSample(metainfo=about, gt_sem_seg=PixelData(data=classes_map))
