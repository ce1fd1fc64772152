"""Detectors on images of one's own, without labels."""

from .predictor import DDNPredictor
