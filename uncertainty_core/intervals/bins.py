"""Metrics of bins over drawn images. Shapes: I images, R resamples, F fine bins."""

import torch
from torch import Tensor

from ..functional.calibration import BIN_METRICS, FINE_BIN_METRICS, BinStatistics
from .cells import CellSums


def drawn_bin_metrics(bins: CellSums, weights: Tensor, num_bins: int) -> dict[str, Tensor]:
    """Every metric of bins (R,) by name, of images drawn `weights` (I, R) times.

    Args:
        bins: what the images add to `fine_bins(num_bins)` cells: a count, and as "excess" success minus confidence.
        weights: of the images.
        num_bins: that people see.
    """
    return metrics_of_excess(bins.drawn(weights), bins.drawn(weights, "excess"), num_bins)


def metrics_of_excess(count: Tensor, excess: Tensor, num_bins: int) -> dict[str, Tensor]:
    """The same from `count` and `excess` (R, F) of fine bins."""
    fine = _statistics(count, excess)
    merged = _statistics(*(values.unflatten(-1, (num_bins, -1)).sum(-1) for values in (count, excess)))
    values = {name: metric(merged) for name, metric in BIN_METRICS.items()}
    return values | {name: metric(fine, num_bins) for name, metric in FINE_BIN_METRICS.items()}


def _statistics(count: Tensor, excess: Tensor) -> BinStatistics:
    # metrics of bins depend on the difference of success and confidence alone
    return BinStatistics(count, torch.zeros_like(excess), excess)
