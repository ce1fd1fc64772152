"""Hooks of mmengine's runner: pictures of uncertainty, and randomness that survives a restart."""

from .randomness import KeyedRandomnessHook
from .visualization import UncertaintyVisualizationHook
