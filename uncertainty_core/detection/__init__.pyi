from .calibration import box_geometry as box_geometry, lrp as lrp
from .coco_format import (
    CocoFormatError as CocoFormatError,
    Detections as Detections,
    GroundTruth as GroundTruth,
    check_detections as check_detections,
    check_federated as check_federated,
    read_detections as read_detections,
    read_ground_truth as read_ground_truth,
)
from .evaluation import (
    DetectionEvaluation as DetectionEvaluation,
    MatchedDetections as MatchedDetections,
    at_equal_count as at_equal_count,
    evaluate as evaluate,
    match_images as match_images,
    merge as merge,
)
from .metric import DetectionCalibration as DetectionCalibration
from .report import tables as tables, write_report as write_report
from .settings import Protocol as Protocol, Settings as Settings
