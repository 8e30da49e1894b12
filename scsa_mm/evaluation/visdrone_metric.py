"""VisDrone-DET's own numbers, from the predictions of an MMDetection model."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from ..datasets.classes import VISDRONE as CLASSES
from ..registry import METRICS
from .visdrone_files import read_annotations, write_detections
from .visdrone_toolkit import evaluate

__all__ = ['VisDroneMetric']


@METRICS.register_module(force=True)  # harmless when this file is loaded again
class VisDroneMetric(BaseMetric):
    """``visdrone/AP``, ``AP50``, ``AP75``, ``AR1``, ``AR10``, ``AR100``, ``AR500``, as the data set's toolkit counts.

    In percent; what is special in the counting: :func:`scsa_mm.evaluation.evaluate`. Ground truth comes from the
    data set's text files, because the ignored regions in them are not in a converted COCO file. An image is known by
    the name of its file: ``img_path`` has to be among the ``meta_keys`` of ``PackDetInputs``, where it is by default.

    Set the model's ``max_per_img`` to 500: with fewer detections in an image AP and AR500 are not what they say.

    Args:
        ann_dir: Folder of the text files, such as ``VisDrone2019-DET-val/annotations``. None to write the detections
            only, for a split without ground truth.
        outfile_prefix: Folder for the detections in the toolkit's format, a file ``<image>.txt`` for each image, the
            best detection first. None to write nothing. (The toolkit itself cannot read the empty file of an image
            without any detection.)
        collect_device: ``'cpu'`` or ``'gpu'``: where the results of several processes are put together.
        prefix: In place of ``visdrone`` in the names.

    Raises:
        ValueError: if neither folder is given, if ``ann_dir`` holds no text files or malformed ones; later, if an image
            has no annotations, came twice or cannot be named, or a label or the data set's classes are not VisDrone's.
    """

    default_prefix = 'visdrone'

    def __init__(
        self,
        ann_dir: str | None = None,
        outfile_prefix: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if ann_dir is None and outfile_prefix is None:
            raise ValueError('VisDroneMetric needs ann_dir, to evaluate, or outfile_prefix, to write detections')
        self.ann_dir = ann_dir
        self.outfile_prefix = outfile_prefix
        # Read now, so that a malformed file does not stop an evaluation at its end.
        self._annotations = None if ann_dir is None else _read_folder(Path(ann_dir))

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        """Meta information of the data set; its classes have to be the ten in the order of their categories."""
        classes = tuple(dataset_meta.get('classes', CLASSES))
        if classes != CLASSES:
            raise ValueError(f'VisDroneMetric takes label 0..9 for category 1..10, {CLASSES}, but classes = {classes}')
        self._dataset_meta = dataset_meta

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep each image's name, size and detections."""
        for sample in data_samples:
            name = _image_name(sample)
            if self._annotations is not None and name not in self._annotations:
                raise ValueError(f'there is no {name}.txt in {self.ann_dir} for the image {sample["img_path"]}')
            self.results.append((name, tuple(sample['ori_shape'][:2]), _detections(sample['pred_instances'], name)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The seven percentages of all images; none if there is no ``ann_dir``."""
        # As the toolkit reads the files, which decides between equal scores.
        results = sorted(results, key=lambda result: result[0])
        names = [name for name, _, _ in results]
        for name, following in pairwise(names):
            if name == following:
                raise ValueError(f'two of the tested images are named {name}')
        if self.outfile_prefix is not None:
            folder = Path(self.outfile_prefix)
            folder.mkdir(parents=True, exist_ok=True)
            for name, _, found in results:
                write_detections(folder / f'{name}.txt', found)
        if self._annotations is None:
            return {}
        if len(names) < len(self._annotations):
            MMLogger.get_current_instance().warning(
                f'VisDroneMetric: {len(names)} images were tested of the {len(self._annotations)} in {self.ann_dir}; '
                'the numbers are those of the tested ones.'
            )
        return evaluate(
            [self._annotations[name] for name in names],
            [found for _, _, found in results],
            [size for _, size, _ in results],
        )


def _read_folder(folder: Path) -> dict[str, np.ndarray]:
    annotations = {path.stem: read_annotations(path) for path in sorted(folder.glob('*.txt'))}
    if not annotations:
        raise ValueError(f'ann_dir has to hold the text files of VisDrone-DET; there are none in {folder}')
    return annotations


def _image_name(sample: dict) -> str:
    if 'img_path' not in sample:
        raise ValueError(
            "VisDroneMetric knows an image by its file: put 'img_path' into the meta_keys of PackDetInputs in the "
            f'test pipeline (found: {sorted(sample)})'
        )
    return PurePath(sample['img_path']).stem


def _detections(predicted: dict, name: str) -> np.ndarray:
    """Predictions with corners and labels as the toolkit's rows, float64 (N, 6), the best first."""
    corners, scores, labels = (predicted[k].cpu().numpy().astype(np.float64) for k in ('bboxes', 'scores', 'labels'))
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(CLASSES)):
        raise ValueError(
            f'the labels in {name} are within {labels.min():.0f}..{labels.max():.0f}; those of the ten classes of '
            'VisDrone are within 0..9: set num_classes=10 in the model'
        )
    corners = corners.reshape(-1, 4)
    rows = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2], scores, labels + 1])
    return rows[np.argsort(-scores, kind='stable')]
