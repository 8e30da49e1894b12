"""Parameters and FLOPs of the model in a config, at the image size that the config tests with."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..runtime.report import attention_in
from .cost import count_flops


@dataclass(frozen=True)
class Complexity:
    """Counts of one model.

    Args:
        parameters: All of them.
        attention: Those of the attention in it.
        flops: Multiply-adds of one image as mmengine counts them; RoI heads run on the model's own proposals.
        size: Image height and width.
    """

    parameters: int
    attention: int
    flops: int
    size: tuple[int, int]


def complexity_of(cfg: Config, size: tuple[int, int] | None = None) -> Complexity:
    """Build the model, without pretrained weights, and count.

    Args:
        cfg: The whole config.
        size: Image height and width in pixels; by default that of the config's test pipeline.
    """
    size = size or image_size(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        torch.manual_seed(0)  # the number of proposals depends on the weights
        model = MODELS.build(cfg.model)
    attention = {id(p): p.numel() for m in attention_in(model).values() for p in m.parameters()}
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    flops = count_flops(_Runnable(model, cfg.get('default_scope')), image)
    return Complexity(sum(p.numel() for p in model.parameters()), sum(attention.values()), flops, size)


class _Runnable(nn.Module):
    """A model called with images alone; MMDetection's get empty annotations of their size beside them."""

    def __init__(self, model: nn.Module, scope: str | None) -> None:
        super().__init__()
        self.model = model
        self.run = partial(model, mode='tensor')
        self.scope = scope

    def forward(self, x: Tensor) -> object:
        if self.scope != 'mmdet':
            return self.run(x)
        from mmdet.structures import DetDataSample

        size = tuple(x.shape[2:])
        metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
        return self.run(x, [DetDataSample(metainfo=metainfo)])


def image_size(cfg: Config) -> tuple[int, int]:
    """Image height and width that a model sees in testing, multiples of 32 where images are padded to that.

    Raises:
        ValueError: if the config's pipelines name none.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        return tuple(preprocessor['size'])
    for loader, kinds in (('test_dataloader', ('CenterCrop', 'Resize')), ('train_dataloader', ('RandomCrop',))):
        for transform in _transforms(cfg[loader].dataset):
            if transform['type'] in kinds:
                size = transform.get('crop_size') or transform['scale']
                if isinstance(size, int):
                    return size, size
                divisor = preprocessor.get('pad_size_divisor', 1)
                return tuple(math.ceil(side / divisor) * divisor for side in size[::-1])
    raise ValueError('the pipelines of this config name no image size')


def _transforms(dataset: dict) -> list[dict]:
    found = list(dataset.get('pipeline') or ())
    for inner in (dataset.get('dataset'), *(dataset.get('datasets') or ())):
        if inner:
            found += _transforms(inner)
    return found
