"""Calibration of detections: does a score of 0.8 find its object eight times in ten, and fit it by how much?

Shapes: N detections, C categories, B bins. A detection's `iou` is that with the box it found, 0 for a false positive;
its success is `iou > 0`. Detections to be ignored, as those of crowds, are left out beforehand.

A value over all categories is the pooled one where the paper pools (ece, msce, mce, d_ece and the means per detection),
and the mean over categories where the metric is defined per category (laece, laace, lrp). In the latter

- a category with detections counts, be its error zero or its ground truth empty;
- one with ground truth alone has nothing to calibrate, but is missed: laece and laace leave it out, its lrp is 1;
- one with neither is left out.
"""

from typing import Any

import torch
from torch import Tensor

from ..checks import check_labels, check_positive_int, check_same_shape, check_unit_interval, warn_undefined
from ..functional.calibration import (
    BIN_METRICS,
    BinStatistics,
    CalibrationResult,
    Edges,
    bin_index,
    bin_sums,
    check_edges,
    ece,
)
from ..metrics.base import SumMetric
from ..streaming.exact_sums import from_limbs, group_sums

LOCALISATION_BINS = 25  # of LaECE, as its authors have it
GEOMETRY_BINS = 5  # of each of the five dimensions of d_ece_box
SCORES = ("nll_pred", "nll", "brier", "laace")


def box_geometry(box: Tensor, image_size: Tensor) -> Tensor:
    """Centre x, centre y, width, height of each box, as shares of its image: (N, 4) in [0, 1].

    Args:
        box: (N, 4) left, top, width, height.
        image_size: (N, 2) width, height.

    What sticks out of the image counts as if it ended there, so that each detection has a bin.
    """
    corner, size = box.split(2, dim=1)
    return torch.cat(((corner + size / 2) / image_size, size / image_size), 1).clamp(0, 1)


def detection_scores(score: Tensor, iou: Tensor) -> Tensor:
    """What is averaged over detections (4, N), in the order of SCORES.

    nll_pred: -log score, which knows no truth (DDN eq. 16).
    nll: negative log-likelihood of success or failure, infinite for a sure false positive.
    brier: (score - success)².
    laace: |score - iou|.
    """
    success = iou > 0
    return torch.stack(
        (
            -score.log(),
            -torch.where(success, score, 1 - score).log(),
            (score - success.to(score.dtype)).square(),
            (score - iou).abs(),
        )
    )


def lrp(found: Tensor, iou: Tensor, detections: Tensor, ground_truth: Tensor, iou_threshold: float) -> Tensor:
    """Localisation-recall-precision error, (sum over hits of (1 - IoU)/(1 - t) + misses + false alarms) / all of them.

    Args:
        found: number of true positives (...).
        iou: sum of their IoU (...).
        detections, ground_truth: numbers of them (...).
        iou_threshold: t.

    1 where nothing is found, NaN where there is nothing to find and nothing detected.
    """
    mistakes = detections + ground_truth - 2 * found
    return ((found - iou) / (1 - iou_threshold) + mistakes) / (found + mistakes)


def mean_over_categories(values: Tensor, name: str) -> Tensor:
    """Mean of `values` (C,) over the categories that have one; NaN means none."""
    if values.isnan().all():
        warn_undefined(name, "there are no samples")
    return values.nanmean()


class DetectionCalibration(SumMetric):
    """Every calibration metric of detections at one IoU threshold. States are sums of size O(C · B).

    `compute()` gives a dict of float64 scalars: ece, msce, mce, mce_abs, nll_pred, nll, brier, d_ece, d_ece_box, laece,
    laace, lrp. `per_category()` gives the same of each category, (C,) each, and NaN for one without detections.

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
        self.add_sum("success_sums", 5, num_categories, num_bins)
        self.add_sum("iou_sums", 5, num_categories, LOCALISATION_BINS)
        self.add_sum("box_sums", 5, num_categories, GEOMETRY_BINS**5)
        self.add_sum("score_sums", 3, len(SCORES), num_categories)  # two limbs, and how many were infinite
        self.add_sum("ground_truth", num_categories)

    def update(
        self, score: Tensor, iou: Tensor, category: Tensor, geometry: Tensor, ground_truth: Tensor | None = None
    ) -> None:
        """Add the detections of some images, and how many boxes these have.

        Args:
            score: (N,) in [0, 1].
            iou: (N,) in [0, 1], with the box found; 0 for a false positive.
            category: (N,) integers in [0, C).
            geometry: (N, 4) in [0, 1], see `box_geometry`.
            ground_truth: number of boxes of each category (C,), crowds not counted.
        """
        check_unit_interval("score", score)
        check_unit_interval("iou", iou)
        check_unit_interval("geometry", geometry)
        check_same_shape("score", score, "iou", iou)
        check_same_shape("score", score, "category", category)
        check_labels("category", category, self.num_categories)
        if geometry.shape != (len(score), 4):
            raise ValueError(f"geometry must have shape ({len(score)}, 4), got {tuple(geometry.shape)}")
        if ground_truth is not None and ground_truth.shape != (self.num_categories,):
            raise ValueError(f"ground_truth must have shape ({self.num_categories},), got {tuple(ground_truth.shape)}")
        score, iou = score.detach().double(), iou.detach().double()
        category = category.long()
        groups = {"group": category, "num_groups": self.num_categories}
        self.success_sums += bin_sums(score, iou > 0, self.num_bins, self.edges, **groups)
        self.iou_sums += bin_sums(score, iou, LOCALISATION_BINS, self.edges, **groups)
        self.box_sums += self._box_sums(score, iou > 0, category, geometry)
        for k, values in enumerate(detection_scores(score, iou)):
            infinite = values == torch.inf
            self.score_sums[:2, k] += group_sums(values.masked_fill(infinite, 0), category, self.num_categories)
            self.score_sums[2, k] += torch.bincount(category[infinite], minlength=self.num_categories)
        if ground_truth is not None:
            self.ground_truth += ground_truth

    def _box_sums(self, score: Tensor, success: Tensor, category: Tensor, geometry: Tensor) -> Tensor:
        cell = category
        for values in geometry.detach().T:
            cell = cell * GEOMETRY_BINS + bin_index(values, GEOMETRY_BINS, self.edges)
        num_cells = self.num_categories * GEOMETRY_BINS**4
        sums = bin_sums(score, success, GEOMETRY_BINS, self.edges, group=cell, num_groups=num_cells)
        return sums.view_as(self.box_sums)

    def compute(self) -> dict[str, Tensor]:
        """All metrics over all categories, by name."""
        pooled = {
            **self._bin_metrics(self.success_sums.sum(1), self.box_sums.sum(1)),
            **self._score_means(self.score_sums.sum(-1), self.success_sums[0].sum()),
        }
        per_category = self.per_category()
        means = {name: mean_over_categories(per_category[name], name) for name in ("laece", "laace", "lrp")}
        return pooled | means

    def per_category(self) -> dict[str, Tensor]:
        """All metrics of each category (C,), by name."""
        count = self.success_sums[0].sum(-1)
        present = count > 0
        values = {
            **self._bin_metrics(self.success_sums[:, present], self.box_sums[:, present]),
            "laece": ece(BinStatistics.from_sums(self.iou_sums[:, present])),
        }
        undefined = torch.full(count.shape, torch.nan, dtype=torch.float64, device=count.device)
        values = {name: undefined.masked_scatter(present, value) for name, value in values.items()}
        values |= self._score_means(self.score_sums, count)
        found = BinStatistics.from_sums(self.success_sums).success.sum(-1)
        iou = BinStatistics.from_sums(self.iou_sums).success.sum(-1)
        return values | {"lrp": lrp(found, iou, count, self.ground_truth, self.iou_threshold)}

    @staticmethod
    def _bin_metrics(success_sums: Tensor, box_sums: Tensor) -> dict[str, Tensor]:
        bins = BinStatistics.from_sums(success_sums)
        values = {name: metric(bins) for name, metric in BIN_METRICS.items()}
        return values | {"d_ece": values["ece"], "d_ece_box": ece(BinStatistics.from_sums(box_sums))}

    @staticmethod
    def _score_means(sums: Tensor, count: Tensor) -> dict[str, Tensor]:
        means = from_limbs(sums[:2]) / count
        return dict(zip(SCORES, means.masked_fill(sums[2] > 0, torch.inf), strict=True))

    def result(self) -> CalibrationResult:
        """The bins of the score over all categories and every other metric, for tables, JSON and plots."""
        scores = {name: value.item() for name, value in self.compute().items() if name not in BIN_METRICS}
        return CalibrationResult(BinStatistics.from_sums(self.success_sums.sum(1)), self.edges, scores)

    def plot(self, metric: str = "ece"):
        """Figure of the reliability diagram, titled with `metric`."""
        from ..plots import reliability_diagram

        return reliability_diagram(self.result(), metric)
