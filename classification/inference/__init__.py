"""Trained classifiers in use."""

from .export import classifier_graph
