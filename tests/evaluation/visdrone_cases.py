"""VisDrone-DET's golden case, and predictions of a model made from it."""

import json
from pathlib import Path

import numpy as np
import torch

from scsa_mm.evaluation import read_annotations, read_detections

FOLDER = Path(__file__).parents[1] / 'data/golden_visdrone'
SIZES = {name: tuple(size) for name, size in json.loads((FOLDER / 'sizes.json').read_text()).items()}
NUMBERS = json.loads((FOLDER / 'toolkit.json').read_text())


def golden():
    """Annotations, detections and sizes of the images, each a list."""
    return (
        [read_annotations(FOLDER / f'annotations/{name}.txt') for name in SIZES],
        [read_detections(FOLDER / f'detections/{name}.txt') for name in SIZES],
        list(SIZES.values()),
    )


def samples(detections=None):
    """What mmengine hands to a metric for the golden images, with the golden or other detections, {name: (N, 6)}."""
    found = detections or dict(zip(SIZES, golden()[1], strict=True))
    made = []
    for name, rows in found.items():
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        predicted = dict(
            bboxes=torch.from_numpy(corners),
            scores=torch.from_numpy(rows[:, 4]),
            labels=torch.from_numpy(rows[:, 5] - 1),
        )
        predicted['labels'] = predicted['labels'].long()
        made.append(dict(img_path=f'some/images/{name}.jpg', ori_shape=SIZES[name], pred_instances=predicted))
    return made
