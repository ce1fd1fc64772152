"""Detectors that a LazyConfig describes: read, trained and evaluated as it declares, distilled, and exported."""

from .config import build_config, check, read_config
from .export import export_lazy
from .training import build_network, evaluate, load_detector, train
