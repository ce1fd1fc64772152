"""The calibration of detections as `torchmetrics.Metric`. Shapes: N detections, C categories."""

from typing import Any

import torch
from torch import Tensor

from ..checks import Edges, check_edges, check_positive_int
from ..functional.calibration import CalibrationResult
from ..metrics.base import SumMetric
from .calibration import (
    DetectionSums,
    calibration_result,
    detection_sums,
    metrics_of,
    metrics_per_category,
    sum_shapes,
)


class DetectionCalibration(SumMetric):
    """Every calibration metric of detections at one IoU threshold. States are sums of size O(C · B).

    `compute()` gives a dict of float64 scalars: the `BIN_METRICS` of the score, d_ece, d_ece_box, nll_pred, nll, brier,
    laece, laace, lrp, and the numbers of detections (n), of categories in the means of laece and laace (classes), and
    of detections whose likelihood is below `LEAST_LIKELIHOOD` (nll_clamped). `per_category()` gives the same, but for
    classes, of each category, (C,) each, and NaN for one without detections.

    - d_ece is the ece of the score (its name in detection); d_ece_box has bins of score x centre x width and height.
    - laece compares the score with the mean IoU, laace does so without bins, and lrp is no measure of calibration, but
      says what accuracy the others were bought with.

    Args:
        num_categories: C.
        iou_threshold: from which on a detection finds a box; in [0, 1), 0 for any overlap.
        num_bins: of the score, for all but laece (25) and d_ece_box (5 in each dimension).
        edges: which edge belongs to a bin, see `bin_index`.
    """

    def __init__(
        self, num_categories: int, iou_threshold: float, num_bins: int = 15, edges: Edges = "right", **kwargs: Any
    ) -> None:
        super().__init__({"iou": iou_threshold, "bins": num_bins, "edges": edges}, **kwargs)
        check_positive_int("num_categories", num_categories)
        check_positive_int("num_bins", num_bins)
        check_edges(edges)
        if not 0 <= iou_threshold < 1:
            raise ValueError(f"iou_threshold must lie in [0, 1), got {iou_threshold!r}")
        self.num_categories, self.iou_threshold = num_categories, iou_threshold
        self.num_bins, self.edges = num_bins, edges
        for name, shape in sum_shapes(num_categories, num_bins).items():
            self.add_sum(name, *shape)

    def update(
        self, score: Tensor, iou: Tensor, category: Tensor, geometry: Tensor, ground_truth: Tensor | None = None
    ) -> None:
        """Add the detections of some images, and how many boxes these have. Arguments as `detection_sums`."""
        if ground_truth is None:
            ground_truth = torch.zeros(self.num_categories, dtype=torch.int64, device=category.device)
        if ground_truth.shape != (self.num_categories,):
            raise ValueError(f"ground_truth must have shape ({self.num_categories},), got {tuple(ground_truth.shape)}")
        sums = detection_sums(score, iou, category, geometry, ground_truth, self.num_bins, self.edges)
        for name, value in sums._asdict().items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def sums(self) -> DetectionSums:
        """All states."""
        return DetectionSums(*(getattr(self, name) for name in DetectionSums._fields))

    def compute(self) -> dict[str, Tensor]:
        """All metrics over all categories, by name."""
        return metrics_of(self.sums, self.iou_threshold, self.num_bins)

    def per_category(self) -> dict[str, Tensor]:
        """All metrics of each category (C,), by name."""
        return metrics_per_category(self.sums, self.iou_threshold, self.num_bins)

    def result(self) -> CalibrationResult:
        """The bins of the score over all categories and every other metric, for tables, JSON and plots."""
        return calibration_result(self.sums, self.iou_threshold, self.num_bins, self.edges)

    def plot(self, metric: str = "ece"):
        """Figure of the reliability diagram, titled with `metric`."""
        from ..plots import reliability_diagram

        return reliability_diagram(self.result(), metric)
