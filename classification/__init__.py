"""Uncertainty distillation for image classifiers."""
