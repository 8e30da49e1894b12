"""COCO's numbers at several limits of detections, each named with its limit."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric
from mmengine.fileio import load
from mmengine.logging import MMLogger

from ..registry import METRICS

__all__ = ['CocoMaxDetsMetric', 'average_precision']

USUAL_LIMIT = 100  # COCO's own
# What is reported at each limit, with the IoU threshold and the range of areas that pycocotools calls so.
ITEMS = {
    'mAP': (None, 'all'),
    'mAP_50': (0.5, 'all'),
    'mAP_75': (0.75, 'all'),
    'mAP_s': (None, 'small'),
    'mAP_m': (None, 'medium'),
    'mAP_l': (None, 'large'),
}


@METRICS.register_module(force=True)  # harmless when this file is loaded again
class CocoMaxDetsMetric(CocoMetric):
    """MMDetection's ``CocoMetric`` with AP at several limits of detections, each said in the name.

    For images with more than 100 objects of a class: COCO takes the best so many detections of each class in an
    image, where :class:`VisDroneMetric` takes them across classes. pycocotools has its first number, mAP, at 100
    whatever ``proposal_nums`` says, and the others at the last of ``proposal_nums``; so one line of a log mixes two
    limits. Here ``coco/bbox_mAP@100``, ``bbox_mAP_50@100``, ``_75``, ``_s``, ``_m``, ``_l`` are all at 100 and
    ``coco/bbox_mAP@500`` and so on all at 500. MMDetection's own names remain for what reads them, such as
    ``save_best='coco/bbox_mAP'``, and mean what they do there: ``bbox_mAP`` at 100, the other five at the largest
    limit. Values are fractions, -1 where there is no object; those under MMDetection's names have three digits.

    A model gives as many detections as its ``max_per_img``, often 100: set it to the largest limit.

    Args:
        ann_file: COCO file of the ground truth. None to take it from the data set.
        max_dets: The limits.
        metric: ``'bbox'``, ``'segm'`` or a list of both.
        classwise: Also each class's mAP at each limit, ``coco/<class>_precision@500``.
        format_only: Write the detections and evaluate nothing.
        outfile_prefix: Folder and first part of the name of the detections' JSON files. None to keep none.
        backend_args: Of mmengine's file backend, for ``ann_file``.
        collect_device: ``'cpu'`` or ``'gpu'``: where the results of several processes are put together.
        prefix: In place of ``coco`` in the names.

    Raises:
        ValueError: if a limit is not positive or given twice, a metric is another one, or ``format_only`` is without
            ``outfile_prefix``; later, if ``ann_file`` lacks a class of the data set.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        max_dets: Sequence[int] = (100, 500),
        metric: str | Sequence[str] = 'bbox',
        classwise: bool = False,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend_args: dict | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        if not max_dets or min(max_dets) < 1 or len(set(max_dets)) < len(max_dets):
            raise ValueError(f'max_dets are different numbers of at least 1, not {max_dets}')
        metrics = [metric] if isinstance(metric, str) else list(metric)
        if not metrics or not {'bbox', 'segm'}.issuperset(metrics):
            raise ValueError(f"metric is 'bbox', 'segm' or a list of both, not {metric!r}")
        if format_only and outfile_prefix is None:
            raise ValueError('format_only needs outfile_prefix, which says where the detections are written')
        super().__init__(
            ann_file=ann_file,
            metric=metrics,
            classwise=classwise,
            format_only=format_only,
            outfile_prefix=outfile_prefix,
            backend_args=backend_args,
            collect_device=collect_device,
            prefix=prefix,
        )
        self.max_dets = tuple(max_dets)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP of each kind at each limit, and MMDetection's six names."""
        annotated, predicted = zip(*results, strict=True)
        values = {}
        with tempfile.TemporaryDirectory() as temporary:
            prefix = self.outfile_prefix or str(Path(temporary, 'results'))
            if self._coco_api is None:
                self._coco_api = COCO(self.gt_to_coco_json(annotated, prefix))
            classes = self.dataset_meta['classes']
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=classes)
            if len(self.cat_ids) != len(classes):
                known = [category['name'] for category in self._coco_api.dataset['categories']]
                raise ValueError(f'the data set has the classes {classes}, ann_file has {known}')
            self.img_ids = self._coco_api.get_img_ids()
            files = self.results2json(predicted, prefix)
            if self.format_only:
                return values
            for metric in self.metrics:
                values.update(self._values(metric, self._accumulated(metric, load(files[metric]))))
        return values

    def _accumulated(self, metric: str, detections: list[dict]) -> COCOeval:
        """pycocotools' evaluation with the precision of each limit in it."""
        if metric == 'segm':
            for detection in detections:
                # Or pycocotools would take the area of the box for that of the mask.
                detection.pop('bbox')
        evaluation = COCOeval(self._coco_api, _load_detections(self._coco_api, detections), metric)
        evaluation.params.catIds = self.cat_ids
        evaluation.params.imgIds = self.img_ids
        # pycocotools matches as many as the last one says.
        evaluation.params.maxDets = sorted({USUAL_LIMIT, *self.max_dets})
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation

    def _values(self, metric: str, evaluation: COCOeval) -> dict[str, float]:
        values = {
            f'{metric}_{item}@{limit}': average_precision(evaluation, limit, *ITEMS[item])
            for limit in self.max_dets
            for item in ITEMS
        }
        for item in ITEMS:
            limit = USUAL_LIMIT if item == 'mAP' else max(self.max_dets)
            values[f'{metric}_{item}'] = round(average_precision(evaluation, limit, *ITEMS[item]), 3)
        if self.classwise:
            names = [category['name'] for category in self._coco_api.loadCats(self.cat_ids)]
            for limit in self.max_dets:
                for index, name in enumerate(names):
                    values[f'{name}_precision@{limit}'] = average_precision(evaluation, limit, category=index)
        for limit in self.max_dets:
            line = ', '.join(f'{item} {values[f"{metric}_{item}@{limit}"]:.4f}' for item in ITEMS)
            MMLogger.get_current_instance().info(f'{metric}, {limit} detections of a class in an image: {line}')
        return values


def average_precision(
    evaluation: COCOeval, limit: int, iou: float | None = None, area: str = 'all', category: int | None = None
) -> float:
    """AP at one limit, from what pycocotools' ``accumulate`` left; -1 if there is no object.

    Its ``summarize`` has mAP at 100 detections alone.

    Args:
        evaluation: With ``limit`` in ``params.maxDets``.
        limit: Detections taken of each class in an image.
        iou: One threshold of the overlap; None for the mean over all.
        area: One of pycocotools' names of ranges of areas: all, small, medium, large.
        category: Index in ``params.catIds``; None for the mean over all.
    """
    params = evaluation.params
    # (IoU threshold, recall, category, range of areas, limit)
    precision = evaluation.eval['precision'][..., params.areaRngLbl.index(area), params.maxDets.index(limit)]
    if iou is not None:
        precision = precision[np.isclose(params.iouThrs, iou)]
    if category is not None:
        precision = precision[:, :, category]
    precision = precision[precision > -1]
    return float(precision.mean()) if precision.size else -1.0


def _load_detections(ground_truth: COCO, detections: list[dict]) -> COCO:
    """pycocotools' ``loadRes``, for no detections also."""
    if detections:
        return ground_truth.loadRes(detections)
    nothing = COCO()
    nothing.dataset = dict(images=ground_truth.dataset['images'], annotations=[])
    nothing.createIndex()
    return nothing
