"""Calibration of detectors: Detectron2's evaluator, the common record of a run, and pictures."""

from .calibration_evaluator import COCOCalibrationEvaluator
from .records import provenance
from .visualizer import draw_changes
