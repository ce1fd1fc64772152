"""Hooks of mmengine's runner: pictures of uncertainty, randomness that survives a restart, a progress bar, an end."""

from .divergence import FiniteLossHook
from .progress import ProgressHook
from .randomness import KeyedRandomnessHook
from .visualization import UncertaintyVisualizationHook
