"""Calibration of detections: does a score of 0.8 find its object eight times in ten, and fit it by how much?

Shapes: N detections, C categories, B bins. A detection's `iou` is that with the box it found, 0 for a false positive;
its success is `iou > 0`. Detections to be ignored, as those of crowds, are left out beforehand.

A value over all categories is the pooled one where the paper pools (ece, msce, mce, d_ece and the means per detection),
and the mean over categories where the metric is defined per category (laece, laace, lrp). In the latter

- a category with detections counts, be its error zero or its ground truth empty;
- one with ground truth alone has nothing to calibrate, but is missed: laece and laace leave it out, its lrp is 1;
- one with neither is left out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import Edges, check_labels, check_same_shape, check_unit_interval, warn_undefined
from ..functional.calibration import (
    BinStatistics,
    CalibrationResult,
    bin_index,
    bin_metrics,
    bin_sums,
    ece,
    fine_bins,
    merge_bins,
)
from ..streaming.exact_sums import from_limbs, group_sums

LOCALISATION_BINS = 25  # of LaECE, as its authors have it
GEOMETRY_BINS = 5  # of each of the five dimensions of d_ece_box
# What nll and nll_pred take for a likelihood of 0, as of a false positive with score 1: the distance of 1 from the
# number below it in single precision. One such detection costs 16.6.
LEAST_LIKELIHOOD = 2.0**-24
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


def geometry_cell(geometry: Tensor, edges: Edges = "right") -> Tensor:
    """The cell (N,) int64 in [0, GEOMETRY_BINS^4) of each `box_geometry` (N, 4)."""
    cell = torch.zeros(len(geometry), dtype=torch.int64, device=geometry.device)
    for values in geometry.detach().T:
        cell = cell * GEOMETRY_BINS + bin_index(values, GEOMETRY_BINS, edges)
    return cell


def likelihood(score: Tensor, iou: Tensor) -> Tensor:
    """The probability (N,) that a score gave to what came true, success or failure."""
    return torch.where(iou > 0, score, 1 - score)


def detection_scores(score: Tensor, iou: Tensor) -> Tensor:
    """What is averaged over detections (4, N), in the order of SCORES.

    nll_pred: -log score, which knows no truth (DDN eq. 16).
    nll: negative log-likelihood of success or failure.
    brier: (score - success)².
    laace: |score - iou|.

    A likelihood counts as LEAST_LIKELIHOOD at least.
    """
    success = iou > 0
    return torch.stack(
        (
            -score.clamp(min=LEAST_LIKELIHOOD).log(),
            -likelihood(score, iou).clamp(min=LEAST_LIKELIHOOD).log(),
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


class DetectionSums(NamedTuple):
    """Int64 sums from which every metric comes; those of several parts of the images may be added.

    success_sums: `bin_sums` of score and success (5, C, F), F = `fine_bins(B)`.
    iou_sums: `bin_sums` of score and IoU (5, C, LOCALISATION_BINS).
    box_sums: `bin_sums` of score and success in bins of score and box (5, C, GEOMETRY_BINS^5).
    score_sums: two limbs of each of SCORES (2, 4, C).
    clamped: detections with a likelihood below LEAST_LIKELIHOOD (C,).
    ground_truth: number of boxes (C,).
    """

    success_sums: Tensor
    iou_sums: Tensor
    box_sums: Tensor
    score_sums: Tensor
    clamped: Tensor
    ground_truth: Tensor


def sum_shapes(num_categories: int, num_bins: int) -> dict[str, tuple[int, ...]]:
    """The shape of each of the sums, by name."""
    return {
        "success_sums": (5, num_categories, fine_bins(num_bins)),
        "iou_sums": (5, num_categories, LOCALISATION_BINS),
        "box_sums": (5, num_categories, GEOMETRY_BINS**5),
        "score_sums": (2, len(SCORES), num_categories),
        "clamped": (num_categories,),
        "ground_truth": (num_categories,),
    }


def detection_sums(
    score: Tensor,
    iou: Tensor,
    category: Tensor,
    geometry: Tensor,
    ground_truth: Tensor,
    num_bins: int = 15,
    edges: Edges = "right",
) -> DetectionSums:
    """The sums of some detections.

    Args:
        score: (N,) in [0, 1].
        iou: (N,) in [0, 1], with the box found; 0 for a false positive.
        category: (N,) integers in [0, C).
        geometry: (N, 4) in [0, 1], see `box_geometry`.
        ground_truth: number of boxes of each category (C,), crowds not counted.
        num_bins: B, of the score.
        edges: which edge belongs to a bin, see `bin_index`.
    """
    num_categories = len(ground_truth)
    check_unit_interval("score", score)
    check_unit_interval("iou", iou)
    check_unit_interval("geometry", geometry)
    check_same_shape("score", score, "iou", iou)
    check_same_shape("score", score, "category", category)
    check_labels("category", category, num_categories)
    if geometry.shape != (len(score), 4):
        raise ValueError(f"geometry must have shape ({len(score)}, 4), got {tuple(geometry.shape)}")
    score, iou = score.detach().double(), iou.detach().double()
    category = category.long()
    groups = {"group": category, "num_groups": num_categories}
    return DetectionSums(
        success_sums=bin_sums(score, iou > 0, fine_bins(num_bins), edges, **groups),
        iou_sums=bin_sums(score, iou, LOCALISATION_BINS, edges, **groups),
        box_sums=_box_sums(score, iou > 0, category, geometry, num_categories, edges),
        score_sums=torch.stack([group_sums(s, category, num_categories) for s in detection_scores(score, iou)], 1),
        clamped=torch.bincount(category[likelihood(score, iou) < LEAST_LIKELIHOOD], minlength=num_categories),
        ground_truth=ground_truth.long(),
    )


def _box_sums(
    score: Tensor, success: Tensor, category: Tensor, geometry: Tensor, num_categories: int, edges: Edges
) -> Tensor:
    group = category * GEOMETRY_BINS**4 + geometry_cell(geometry, edges)
    num_groups = num_categories * GEOMETRY_BINS**4
    sums = bin_sums(score, success, GEOMETRY_BINS, edges, group=group, num_groups=num_groups)
    return sums.view(5, num_categories, GEOMETRY_BINS**5)


def metrics_of(sums: DetectionSums, iou_threshold: float, num_bins: int = 15) -> dict[str, Tensor]:
    """All metrics over all categories: float64 scalars by name."""
    pooled = {
        **_bin_metrics(sums.success_sums.sum(1), sums.box_sums.sum(1), num_bins),
        **_score_means(sums.score_sums.sum(-1), sums.success_sums[0].sum()),
    }
    per_category = metrics_per_category(sums, iou_threshold, num_bins)
    means = {name: mean_over_categories(per_category[name], name) for name in ("laece", "laace", "lrp")}
    classes = per_category["laece"].isfinite().sum()
    counts = {
        "n": per_category["n"].sum(),
        "classes": classes.double(),
        "nll_clamped": per_category["nll_clamped"].sum(),
    }
    return pooled | means | counts


def metrics_per_category(sums: DetectionSums, iou_threshold: float, num_bins: int = 15) -> dict[str, Tensor]:
    """All metrics of each category (C,) but classes, by name; NaN for one without detections."""
    count = sums.success_sums[0].sum(-1)
    present = count > 0
    values = {
        **_bin_metrics(sums.success_sums[:, present], sums.box_sums[:, present], num_bins),
        "laece": ece(BinStatistics.from_sums(sums.iou_sums[:, present])),
    }
    undefined = torch.full(count.shape, torch.nan, dtype=torch.float64, device=count.device)
    values = {name: undefined.masked_scatter(present, value) for name, value in values.items()}
    values |= _score_means(sums.score_sums, count)
    found = BinStatistics.from_sums(sums.success_sums).success.sum(-1)
    iou = BinStatistics.from_sums(sums.iou_sums).success.sum(-1)
    values |= {"lrp": lrp(found, iou, count, sums.ground_truth, iou_threshold)}
    return values | {"n": count.double(), "nll_clamped": sums.clamped.double()}


def _bin_metrics(success_sums: Tensor, box_sums: Tensor, num_bins: int) -> dict[str, Tensor]:
    values = bin_metrics(success_sums, num_bins)
    return values | {"d_ece": values["ece"], "d_ece_box": ece(BinStatistics.from_sums(box_sums))}


def _score_means(sums: Tensor, count: Tensor) -> dict[str, Tensor]:
    return dict(zip(SCORES, from_limbs(sums) / count, strict=True))


def calibration_result(
    sums: DetectionSums, iou_threshold: float, num_bins: int = 15, edges: Edges = "right"
) -> CalibrationResult:
    """The bins of the score over all categories and every other metric, for tables, JSON and plots."""
    bins = BinStatistics.from_sums(merge_bins(sums.success_sums.sum(1), num_bins))
    return CalibrationResult(bins, edges, metrics_of(sums, iou_threshold, num_bins))
