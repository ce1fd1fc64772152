"""The metrics as `torchmetrics.Metric`: update, compute, reset, merge_state, plot, and sync over ranks.

All states are int64 sums whose size does not depend on the number of samples; adding them is exact, so shards, ranks
and a single pass agree to the last bit.

Shapes: N samples, C classes, K bins, `...` any further dimensions (pixels).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import (
    Edges,
    check_edges,
    check_label_shape,
    check_labels,
    check_positive_int,
    check_same_shape,
    check_unit_interval,
    warn_undefined,
)
from ..functional.calibration import (
    BinStatistics,
    CalibrationResult,
    adaptive_ece,
    bin_index,
    bin_metrics,
    bin_sums,
    cell_sums,
    class_wise_ece,
    fine_bins,
    merge_bins,
)
from ..functional.logit_scores import check_logits, logit_scores
from ..functional.scores import SampleScores, check_predictions, sample_scores
from ..streaming.chunks import chunk_length, class_cells, pieces, split_void
from ..streaming.dtypes import at_least_float32
from ..streaming.exact_sums import LIMIT, from_limbs, group_counts, group_sums, total_limbs
from .base import SumMetric

ScoredPiece = tuple[SampleScores, Tensor | None]  # scores (n, m) each, and which of them are void
SCORES = ("accuracy", "brier", "nll_true", "nll_pred", "entropy")


class CalibrationMetric(SumMetric):
    """Calibration and proper scores of class probabilities, over every sample or pixel.

    `compute()` gives a dict of float64 scalars: metrics of bins (ece, msce, ...), accuracy, brier, nll_true,
    nll_pred, entropy; class_wise_ece and class_wise_adaptive_ece if asked for. `result()` gives the
    `CalibrationResult` with every bin.

    Args:
        num_classes: C.
        num_bins: K.
        edges: which edge belongs to a bin, see `bin_index`.
        ignore_index: label of samples to leave out (void pixels).
        class_wise: also bin the probability of each class, at C times the cost.
        scores: those of the means above to compute, in this order; each of them takes its time.

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
        scores: Sequence[str] = SCORES,
        **kwargs: Any,
    ) -> None:
        settings = {"classes": num_classes, "bins": num_bins, "edges": edges, "ignore": ignore_index}
        settings["scores"] = list(scores)
        super().__init__(settings, **kwargs)
        check_positive_int("num_classes", num_classes)
        check_positive_int("num_bins", num_bins)
        check_edges(edges)
        self.num_classes, self.num_bins, self.edges = num_classes, num_bins, edges
        if not set(scores) <= set(SCORES):
            raise ValueError(f"scores must be some of {', '.join(SCORES)}, got {scores!r}")
        self.ignore_index, self.class_wise, self.scores = ignore_index, class_wise, tuple(scores)
        self.add_sum("bin_sums", 5, fine_bins(num_bins))
        self.add_sum("score_sums", 3, len(scores))  # two limbs, and how many were infinite
        if class_wise:
            self.add_sum("class_bin_sums", 5, num_classes, fine_bins(num_bins))

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add `probabilities` (N, C, ...) and true classes `labels` (N, ...)."""
        check_predictions(probabilities, labels, self.ignore_index)
        self._check_classes("probabilities", probabilities)
        self._add(self._scores(probabilities.detach(), labels))
        if self.class_wise:
            self._add_class_wise(probabilities.detach(), labels)

    def update_logits(self, logits: Tensor, labels: Tensor, predictions: Tensor | None = None) -> None:
        """Add the softmax of `logits` (N, C, ...) and true classes `labels` (N, ...), as `update` does.

        Made for images: the softmax itself is never held, which takes a third of the time and no memory. If the
        predicted classes (N, ...) are known already, `predictions` saves some more; they are taken as they are.
        """
        if logits.dim() < 2 or not logits.is_floating_point():
            raise ValueError(f"logits must be floating point (N, C, ...), got {logits.dtype} {tuple(logits.shape)}")
        check_label_shape(logits, labels, "logits")
        self._check_classes("logits", logits)
        if predictions is not None:
            check_same_shape("predictions", predictions, "labels", labels)
        self._add(self._scores_of_logits(logits.detach(), labels, predictions))
        self._update_count += 1  # as torchmetrics has it for `update`
        self._computed = None
        if self.class_wise:
            self._add_class_wise(at_least_float32(logits.detach()).softmax(1), labels)

    def _check_classes(self, name: str, predictions: Tensor) -> None:
        if predictions.shape[1] != self.num_classes:
            raise ValueError(f"{name} must have {self.num_classes} classes, got {predictions.shape[1]}")

    def _split_void(self, part: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        label, void = split_void(part, "labels", labels, self.num_classes, self.ignore_index)
        return label.long(), void

    def _scores(self, probabilities: Tensor, labels: Tensor) -> Iterator[ScoredPiece]:
        for piece, part in pieces(probabilities, labels):
            label, void = self._split_void(part, labels)
            scores = sample_scores(at_least_float32(piece), label)
            # in half precision the edges are its own
            yield scores._replace(confidence=scores.confidence.to(piece.dtype)), void

    def _scores_of_logits(self, logits: Tensor, labels: Tensor, predictions: Tensor | None) -> Iterator[ScoredPiece]:
        if labels.is_floating_point() or labels.is_complex():
            check_labels("labels", labels, self.num_classes)
        known = () if predictions is None else (predictions,)
        for piece, part, *prediction in pieces(logits, labels, *known, length=chunk_length(labels)):
            label, void = self._split_void(part, labels)
            success = prediction[0] == part if known else None
            scores = logit_scores(piece, label, success, "entropy" in self.scores)
            if scores.confidence.amax().isnan():
                check_logits(logits)
            yield scores, void

    def _add(self, parts: Iterable[ScoredPiece]) -> None:
        """Add all parts but their void samples; if one of them is refused, none."""
        bins, totals = torch.zeros_like(self.bin_sums), torch.zeros_like(self.score_sums)
        cells = fine_bins(self.num_bins)
        for scores, void in parts:
            cell = bin_index(scores.confidence, cells, self.edges)
            if void is not None:  # to a bin that is dropped: picking the others takes longer
                cell.masked_fill_(void, cells)
            for row, name in enumerate(self.scores):
                values = getattr(scores, name).to(scores.brier.dtype)
                if void is not None:
                    values.masked_fill_(void, 0)
                if values.amax() >= LIMIT:
                    infinite = values >= LIMIT
                    values = values.masked_fill(infinite, 0)
                    totals[2, row] += infinite.sum()
                totals[:2, row] += total_limbs(values.flatten())
            confidence, success = scores.confidence.flatten(), scores.success.flatten()
            sums = cell_sums(cell.flatten(), cells + 1, confidence, success)[:, :-1]
            bins += sums
        self.bin_sums += bins
        self.score_sums += totals

    def _add_class_wise(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add the probability of each class, (N, C, ...)."""
        classes = torch.arange(self.num_classes, device=labels.device)
        for piece, label in pieces(probabilities, labels):
            label, void = self._split_void(label, labels)
            valid = slice(None) if void is None else ~void
            per_class = piece.movedim(1, -1)[valid]  # (..., C)
            is_class = label[valid].unsqueeze(-1) == classes
            group = classes.expand_as(per_class)
            self.class_bin_sums += bin_sums(
                per_class, is_class, fine_bins(self.num_bins), self.edges, group=group, num_groups=self.num_classes
            )

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name."""
        means = from_limbs(self.score_sums[:2]) / self.bin_sums[0].sum()
        means = means.masked_fill(self.score_sums[2] > 0, torch.inf)
        values = bin_metrics(self.bin_sums, self.num_bins) | dict(zip(self.scores, means, strict=True))
        if self.class_wise:
            values["class_wise_ece"] = class_wise_ece(
                BinStatistics.from_sums(merge_bins(self.class_bin_sums, self.num_bins))
            )
            fine = BinStatistics.from_sums(self.class_bin_sums)
            values["class_wise_adaptive_ece"] = adaptive_ece(fine, self.num_bins).mean()
        return values

    def result(self) -> CalibrationResult:
        """The measurement with every bin, for tables, JSON and plots."""
        bins = BinStatistics.from_sums(merge_bins(self.bin_sums, self.num_bins))
        return CalibrationResult(bins, self.edges, self.compute())

    def plot(self, metric: str = "ece"):
        """Figure of the reliability diagram, titled with `metric`."""
        from ..plots import reliability_diagram

        return reliability_diagram(self.result(), metric)


class ConfidenceCalibration(SumMetric):
    """Calibration of single confidences, whatever they are about: detections, a binary event, groups of either.

    `compute()` gives a dict of metrics of bins (ece, msce, ...): float64 scalars, or (G,) with groups.

    Args:
        num_bins: K.
        edges: which edge belongs to a bin, see `bin_index`.
        num_groups: G, if each group (class) is to have bins of its own.
    """

    def __init__(
        self, num_bins: int = 15, edges: Edges = "right", num_groups: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__({"groups": num_groups, "bins": num_bins, "edges": edges}, **kwargs)
        check_positive_int("num_bins", num_bins)
        check_edges(edges)
        if num_groups is not None:
            check_positive_int("num_groups", num_groups)
        self.num_bins, self.edges, self.num_groups = num_bins, edges, num_groups
        self.add_sum("bin_sums", 5, *(() if num_groups is None else (num_groups,)), fine_bins(num_bins))

    def update(self, confidence: Tensor, success: Tensor, group: Tensor | None = None) -> None:
        """Add `confidence` (N,), `success` (N,) bool or in [0, 1], and with groups `group` (N,) integer."""
        if (group is None) != (self.num_groups is None):
            raise ValueError("group must be given if, and only if, num_groups was")
        self.bin_sums += bin_sums(confidence, success, fine_bins(self.num_bins), self.edges, group, self.num_groups)

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name."""
        return bin_metrics(self.bin_sums, self.num_bins)

    @property
    def bins(self) -> BinStatistics:
        """Statistics of the K bins, or of (G, K)."""
        return BinStatistics.from_sums(merge_bins(self.bin_sums, self.num_bins))

    def result(self) -> CalibrationResult:
        """The measurement with every bin; groups are added up."""
        sums = self.bin_sums if self.num_groups is None else self.bin_sums.sum(1)
        bins = BinStatistics.from_sums(merge_bins(sums, self.num_bins))
        return CalibrationResult(bins, self.edges, bin_metrics(sums, self.num_bins))

    def plot(self, metric: str = "ece"):
        """Figure of the reliability diagram, titled with `metric`."""
        from ..plots import reliability_diagram

        return reliability_diagram(self.result(), metric)


class GroupMean(SumMetric):
    """Mean of values in [0, 1] per group and over groups: class-wise uncertainty and mUnc (DUDES table 2).

    `compute()` gives a dict: per_group (G,), NaN where a group never occurs, and mean over those that do, float64.

    Args:
        num_groups: G, the number of ground-truth classes.
        ignore_index: group of values to leave out.
    """

    def __init__(self, num_groups: int, ignore_index: int | None = None, **kwargs: Any) -> None:
        super().__init__({"groups": num_groups, "ignore": ignore_index}, **kwargs)
        check_positive_int("num_groups", num_groups)
        self.num_groups, self.ignore_index = num_groups, ignore_index
        self.add_sum("sums", 3, num_groups)

    def update(self, values: Tensor, group: Tensor) -> None:
        """Add `values` in [0, 1] and their `group`, integers of the same shape."""
        check_unit_interval("values", values)
        check_same_shape("values", values, "group", group)
        cells = self.num_groups + 1  # the last one is for what is ignored
        sums = torch.zeros(3, cells, dtype=torch.int64, device=values.device)
        groups = class_cells("group", group, self.num_groups, self.ignore_index)
        for chunk, cell in zip(values.detach().flatten().split(chunk_length(values)), groups, strict=True):
            sums[0] += group_counts(cell, cells)
            sums[1:] += group_sums(chunk, cell.long(), cells)
        self.sums += sums[:, :-1]

    def compute(self) -> dict[str, Tensor]:
        """Means by name."""
        if not self.sums[0].any():
            warn_undefined("the mean", "there are no samples")
        per_group = from_limbs(self.sums[1:]) / self.sums[0]
        return {"per_group": per_group, "mean": per_group.nanmean()}
