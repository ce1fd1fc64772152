"""The metrics as `torchmetrics.Metric`: update, compute, reset, merge_state, plot, and sync over ranks.

All states are int64 sums whose size does not depend on the number of samples; adding them is exact, so shards, ranks
and a single pass agree to the last bit.

Shapes: N samples, C classes, K bins, `...` any further dimensions (pixels).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .calibration import (
    BIN_METRICS,
    BinStatistics,
    CalibrationResult,
    Edges,
    bin_sums,
    check_edges,
    class_wise_ece,
)
from .checks import check_labels, check_positive_int, check_same_shape, check_unit_interval, warn_undefined
from .exact_sums import from_limbs, group_counts, group_sums, to_limbs
from .scores import SampleScores, at_least_float32, check_predictions, sample_scores
from .sum_metric import SumMetric

SCORES = ("accuracy", "brier", "nll_true", "nll_pred", "entropy")


def _pieces(probabilities: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut (N, C, ...) and (N, ...) into pieces (n, C, m) and (n, m) whose temporaries fit the cache."""
    num_classes = probabilities.shape[1]
    length = max(1, 2**19 // num_classes)
    if probabilities.dim() == 2:  # rows are contiguous
        for piece, label in zip(probabilities.split(length), labels.split(length), strict=True):
            yield piece.unsqueeze(2), label.unsqueeze(1)
    else:  # classes are planes
        for image, label in zip(probabilities.flatten(2).split(1), labels.flatten(1).split(1), strict=True):
            yield from zip(image.split(length, dim=2), label.split(length, dim=1), strict=True)


class CalibrationMetric(SumMetric):
    """Calibration and proper scores of class probabilities, over every sample or pixel.

    `compute()` gives a dict of float64 scalars: ece, msce, mce, mce_abs, accuracy, brier, nll_true, nll_pred, entropy,
    and class_wise_ece if asked for. `result()` gives the `CalibrationResult` with every bin.

    Args:
        num_classes: C.
        num_bins: K.
        edges: which edge belongs to a bin, see `bin_index`.
        ignore_index: label of samples to leave out (void pixels).
        class_wise: also bin the probability of each class, at C times the cost.

    Example:
        >>> metric = CalibrationMetric(num_classes=2, num_bins=10)
        >>> metric.update(torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([0, 0]))
        >>> round(metric.compute()["ece"].item(), 3)  # (|1 - 0.8| + |0 - 0.6|) / 2
        0.4
    """

    def __init__(
        self,
        num_classes: int,
        num_bins: int = 15,
        edges: Edges = "right",
        ignore_index: int | None = None,
        class_wise: bool = False,
        **kwargs: Any,
    ) -> None:
        settings = {"bins": num_bins, "edges": edges, "ignore": ignore_index}
        super().__init__(settings, **kwargs)
        check_positive_int("num_classes", num_classes)
        check_positive_int("num_bins", num_bins)
        check_edges(edges)
        self.num_classes, self.num_bins, self.edges = num_classes, num_bins, edges
        self.ignore_index, self.class_wise = ignore_index, class_wise
        self.add_sum("bin_sums", 5, num_bins)
        self.add_sum("score_sums", 3, len(SCORES))  # two limbs, and how many were infinite
        if class_wise:
            self.add_sum("class_bin_sums", 5, num_classes, num_bins)

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add `probabilities` (N, C, ...) and true classes `labels` (N, ...)."""
        check_predictions(probabilities, labels, self.ignore_index)
        if probabilities.shape[1] != self.num_classes:
            raise ValueError(f"probabilities must have {self.num_classes} classes, got {probabilities.shape[1]}")
        for piece, label in _pieces(probabilities.detach(), labels.long()):
            self._update_piece(piece, label)

    def _update_piece(self, probabilities: Tensor, labels: Tensor) -> None:
        """`probabilities` (n, C, m) and `labels` (n, m), checked."""
        valid = slice(None) if self.ignore_index is None else labels != self.ignore_index
        if self.ignore_index is not None:
            labels = labels.where(valid, 0)
        scores = SampleScores(*(values[valid] for values in sample_scores(at_least_float32(probabilities), labels)))
        confidence = scores.confidence.to(probabilities.dtype)  # where the edges of half precision are its own
        self.bin_sums += bin_sums(confidence, scores.success, self.num_bins, self.edges)
        columns = (scores.success, scores.brier, scores.nll_true, scores.nll_pred, scores.entropy)
        for column, values in enumerate(columns):
            infinite = values == torch.inf
            self.score_sums[:2, column] += to_limbs(values.masked_fill(infinite, 0)).flatten(1).sum(1)
            self.score_sums[2, column] += infinite.sum()
        if self.class_wise:
            classes = torch.arange(self.num_classes, device=labels.device)
            per_class = probabilities.movedim(1, -1)[valid]  # (..., C)
            is_class = labels[valid].unsqueeze(-1) == classes
            group = classes.expand_as(per_class)
            self.class_bin_sums += bin_sums(
                per_class, is_class, self.num_bins, self.edges, group=group, num_groups=self.num_classes
            )

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name."""
        bins = BinStatistics.from_sums(self.bin_sums)
        means = from_limbs(self.score_sums[:2]) / bins.count.sum()
        means = means.masked_fill(self.score_sums[2] > 0, torch.inf)
        values = {name: metric(bins) for name, metric in BIN_METRICS.items()} | dict(zip(SCORES, means, strict=True))
        if self.class_wise:
            values["class_wise_ece"] = class_wise_ece(BinStatistics.from_sums(self.class_bin_sums))
        return values

    def result(self) -> CalibrationResult:
        """The measurement with every bin, for tables, JSON and plots."""
        scores = {name: value.item() for name, value in self.compute().items() if name not in BIN_METRICS}
        return CalibrationResult(BinStatistics.from_sums(self.bin_sums), self.edges, scores)

    def plot(self, metric: str = "ece"):
        """Figure of the reliability diagram, titled with `metric`."""
        from .plots import reliability_diagram

        return reliability_diagram(self.result(), metric)


class ConfidenceCalibration(SumMetric):
    """Calibration of single confidences, whatever they are about: detections, a binary event, groups of either.

    `compute()` gives a dict of ece, msce, mce, mce_abs: float64 scalars, or (G,) with groups.

    Args:
        num_bins: K.
        edges: which edge belongs to a bin, see `bin_index`.
        num_groups: G, if each group (class) is to have bins of its own.
    """

    def __init__(
        self, num_bins: int = 15, edges: Edges = "right", num_groups: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__({"bins": num_bins, "edges": edges}, **kwargs)
        check_positive_int("num_bins", num_bins)
        check_edges(edges)
        if num_groups is not None:
            check_positive_int("num_groups", num_groups)
        self.num_bins, self.edges, self.num_groups = num_bins, edges, num_groups
        self.add_sum("bin_sums", 5, *(() if num_groups is None else (num_groups,)), num_bins)

    def update(self, confidence: Tensor, success: Tensor, group: Tensor | None = None) -> None:
        """Add `confidence` (N,), `success` (N,) bool or in [0, 1], and with groups `group` (N,) integer."""
        if (group is None) != (self.num_groups is None):
            raise ValueError("group must be given if, and only if, num_groups was")
        self.bin_sums += bin_sums(confidence, success, self.num_bins, self.edges, group, self.num_groups)

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name."""
        return {name: metric(self.bins) for name, metric in BIN_METRICS.items()}

    @property
    def bins(self) -> BinStatistics:
        """Statistics of the K bins, or of (G, K)."""
        return BinStatistics.from_sums(self.bin_sums)

    def result(self) -> CalibrationResult:
        """The measurement with every bin; groups are added up."""
        sums = self.bin_sums if self.num_groups is None else self.bin_sums.sum(1)
        return CalibrationResult(BinStatistics.from_sums(sums), self.edges)

    def plot(self, metric: str = "ece"):
        """Figure of the reliability diagram, titled with `metric`."""
        from .plots import reliability_diagram

        return reliability_diagram(self.result(), metric)


class GroupMean(SumMetric):
    """Mean of values in [0, 1] per group and over groups: class-wise uncertainty and mUnc (DUDES table 2).

    `compute()` gives a dict: per_group (G,), NaN where a group never occurs, and mean over those that do, float64.

    Args:
        num_groups: G, the number of ground-truth classes.
        ignore_index: group of values to leave out.
    """

    def __init__(self, num_groups: int, ignore_index: int | None = None, **kwargs: Any) -> None:
        super().__init__({"ignore": ignore_index}, **kwargs)
        check_positive_int("num_groups", num_groups)
        self.num_groups, self.ignore_index = num_groups, ignore_index
        self.add_sum("sums", 3, num_groups)

    def update(self, values: Tensor, group: Tensor) -> None:
        """Add `values` in [0, 1] and their `group`, integers of the same shape."""
        check_unit_interval("values", values)
        check_same_shape("values", values, "group", group)
        check_labels("group", group, self.num_groups, self.ignore_index)
        if self.ignore_index is not None:
            valid = group != self.ignore_index
            values, group = values[valid], group[valid]
        group = group.flatten().long()
        self.sums[0] += group_counts(group, self.num_groups)
        self.sums[1:] += group_sums(values.detach().flatten(), group, self.num_groups)

    def compute(self) -> dict[str, Tensor]:
        """Means by name."""
        if not self.sums[0].any():
            warn_undefined("the mean", "there are no samples")
        per_group = from_limbs(self.sums[1:]) / self.sums[0]
        return {"per_group": per_group, "mean": per_group.nanmean()}
