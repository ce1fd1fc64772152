"""Average precision and calibration of detections for COCO-format data, of any framework.

Knows numpy and torch. Not imported by `uncertainty_core` itself.
"""

from .calibration import DetectionCalibration, box_geometry, lrp
from .coco_format import (
    CocoFormatError,
    Detections,
    GroundTruth,
    check_detections,
    read_detections,
    read_ground_truth,
)
from .evaluation import DetectionEvaluation, MatchedDetections, Settings, evaluate, match_images, merge
from .report import tables, write_report
