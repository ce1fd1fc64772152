"""Predictions for images without labels, and their pictures."""

from .folder import PredictionFolder
from .pictures import strip
from .predict import predict_images
