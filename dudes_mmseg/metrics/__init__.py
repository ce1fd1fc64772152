"""Metrics of uncertainty and calibration for mmengine's evaluators, over every pixel of every image."""

from .calibration import SegCalibrationMetric
from .pixels import PixelSampleMetric
from .sparsification import SparsificationMetric
from .uncertainty import UncertaintyMetric
