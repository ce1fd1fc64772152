"""Metrics over a stream of batches, as `torchmetrics.Metric`: exact over batches, shards and ranks."""

from .base import SumMetric
from .calibration import CalibrationMetric, ConfidenceCalibration, GroupMean
from .selective import PixelRanking, UncertaintyRanking
