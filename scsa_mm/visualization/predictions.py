"""A picture of held-out images: what is there on the left, what the model finds on the right."""

import copy
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from pycocotools import mask as coco_mask
from torch import nn

import scsa_mm  # noqa: F401  (registers the attention and lets torch.load read mmengine's checkpoints)

from .pairs import Instances, Pair, draw_pairs


def draw_predictions(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path,
    images: int = 6,
    score_thr: float = 0.5,
    device: str | None = None,
    title: str | None = None,
) -> None:
    """Run a detector on some images of its test set and draw them in pairs, as a PNG.

    Args:
        config: Of any mmdet detector, with or without masks; its test set has annotations.
        checkpoint: Its weights.
        out: The PNG file; its folder exists.
        images: How many, spread over those images that have an object.
        score_thr: Predictions below this score are left out.
        device: Defaults to the GPU if there is one.
        title: Defaults to the name of the checkpoint and the threshold.

    Raises:
        ValueError: if the test set has no image with an object.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else Config.fromfile(config)
    device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    model = init_detector(cfg, str(checkpoint), palette='random', device=device)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        pairs = [_pair(model, dataset, i, score_thr) for i in _spread(dataset, images)]
    title = title or f'{Path(checkpoint).name}, predictions with a score of {score_thr:g} or more'
    draw_pairs(pairs, dataset.metainfo['classes'], out, title)


def _spread(dataset: BaseDataset, images: int) -> list[int]:
    """Indices of images with an object, evenly over the dataset."""
    filled = [i for i in range(len(dataset)) if dataset.get_data_info(i)['instances']]
    if not filled:
        raise ValueError(f'{dataset.ann_file} has no image with an object')
    picked = np.linspace(0, len(filled) - 1, min(images, len(filled)))
    return [filled[round(p)] for p in picked]


def _pair(model: nn.Module, dataset: BaseDataset, index: int, score_thr: float) -> Pair:
    info = dataset.get_data_info(index)
    image = cv2.imread(info['img_path'])[:, :, ::-1]
    with torch.no_grad():
        found = model.test_step(pseudo_collate([dataset[index]]))[0].pred_instances.cpu()
    found = found[found.scores >= score_thr]
    predicted = Instances(
        boxes=found.bboxes.numpy(),
        labels=found.labels.numpy(),
        masks=found.masks.numpy() if 'masks' in found else None,
        scores=found.scores.numpy(),
    )
    return Pair(image, annotated(info['instances'], *image.shape[:2]), predicted)


def annotated(instances: list[dict], height: int, width: int) -> Instances:
    """The annotations of an image as mmdet's datasets read them, before any pipeline has scaled them."""
    masks = None
    if instances and all('mask' in i for i in instances):
        masks = np.stack([_decode(i['mask'], height, width) for i in instances])
    return Instances(
        boxes=np.array([i['bbox'] for i in instances], dtype=float).reshape(-1, 4),
        labels=np.array([i['bbox_label'] for i in instances], dtype=int),
        masks=masks,
        crowds=np.array([bool(i.get('ignore_flag')) for i in instances]),
    )


def _decode(mask: list | dict, height: int, width: int) -> np.ndarray:
    """Polygons or run lengths, as bool (H, W)."""
    if isinstance(mask, list):
        mask = coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    elif isinstance(mask['counts'], list):
        mask = coco_mask.frPyObjects(mask, height, width)
    return coco_mask.decode(mask).astype(bool)
