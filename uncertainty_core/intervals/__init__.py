"""Intervals of metrics, and of the differences between predictors, from what is kept of each image.

Knows torch and numpy. Not imported by `uncertainty_core` itself.
"""

FILE = "images.npz"  # beside run.json
