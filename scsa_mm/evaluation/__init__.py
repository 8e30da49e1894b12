"""Evaluation: VisDrone-DET's own protocol, and COCO's at more than 100 detections.

The functions need NumPy alone; ``CocoMaxDetsMetric`` is there where MMDetection is installed.
"""

import importlib.util

from .visdrone_files import read_annotations, read_detections, write_detections
from .visdrone_metric import VisDroneMetric
from .visdrone_toolkit import evaluate

__all__ = ['VisDroneMetric', 'evaluate', 'read_annotations', 'read_detections', 'write_detections']

if importlib.util.find_spec('mmdet') is not None:
    from .coco_max_dets_metric import CocoMaxDetsMetric

    __all__ += ['CocoMaxDetsMetric']
