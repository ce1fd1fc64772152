"""Average precision and recall as COCO defines them, from the outcome of every detection.

Shapes: D detections, C categories, T IoU thresholds, R recall thresholds.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .coco_format import Detections
from .matching import IGNORED, MAX_DETECTIONS, TRUE_POSITIVE

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0, 1, 101)
RANKS = (1, 10, MAX_DETECTIONS)


class PrecisionRecall(NamedTuple):
    """Of one area range, NaN for a category without ground truth.

    precision: mean over the R recalls of the interpolated precision (T, C).
    recall: of the best 1, 10 and 100 detections of each image and category (3, T, C).
    """

    precision: np.ndarray
    recall: np.ndarray


def by_category(detections: Detections) -> np.ndarray:
    """Indices of the detections (D,) by category, then by falling score.

    Of equal scores the one that was higher before recalibration comes first, then the one that stands first.
    """
    return np.lexsort((-detections.score_before, -detections.score, detections.category))


def precision_recall(
    outcome: np.ndarray, in_order: np.ndarray, category: np.ndarray, rank: np.ndarray, num_ground_truth: np.ndarray
) -> PrecisionRecall:
    """Precision and recall of one area range.

    Args:
        outcome: of each detection at each threshold (T, D), as `matching.outcome` gives it.
        in_order: indices of the detections by category, then by falling score (D,), see `by_category`.
        category: (D,).
        rank: of each detection in its image and category (D,).
        num_ground_truth: boxes that count in each category (C,).
    """
    num_thresholds, num_categories = len(outcome), len(num_ground_truth)
    precision = np.full((num_thresholds, num_categories), np.nan)
    limits = np.searchsorted(category[in_order], np.arange(num_categories + 1))
    for c in np.flatnonzero(num_ground_truth):
        of_category = outcome[:, in_order[limits[c] : limits[c + 1]]]
        for t, row in enumerate(of_category):
            precision[t, c] = _interpolated_precision(row, num_ground_truth[c])

    threshold, found = np.nonzero(outcome == TRUE_POSITIVE)
    cell = threshold * num_categories + category[found]
    size = num_thresholds * num_categories
    hits = np.stack([np.bincount(cell[rank[found] < most], minlength=size) for most in RANKS])
    with np.errstate(invalid="ignore"):
        recall = hits.reshape(len(RANKS), num_thresholds, num_categories) / num_ground_truth
    return PrecisionRecall(precision, recall)


def _interpolated_precision(outcome: np.ndarray, num_ground_truth: int) -> float:
    """Mean over the recall thresholds of the best precision at that recall or more, 0 where it is never reached.

    Precision is best right at a true positive, so that it is enough to look there.
    """
    at = np.flatnonzero(outcome == TRUE_POSITIVE)
    hits = np.arange(1, len(at) + 1)
    counted = np.cumsum(outcome != IGNORED)[at]
    best = np.maximum.accumulate((hits / counted)[::-1])[::-1]
    reached = np.searchsorted(hits / num_ground_truth, RECALL_THRESHOLDS, side="left")
    return np.append(best, 0.0)[reached].mean()


def summarize(of_area: Mapping[str, PrecisionRecall]) -> dict[str, float]:
    """COCO's twelve numbers in percent, as Detectron2 gives them; NaN where no category has ground truth.

    Args:
        of_area: results of the area ranges "all", "small", "medium" and "large".
    """
    at = {t: int(np.abs(IOU_THRESHOLDS - t / 100).argmin()) for t in (50, 75)}
    values = {
        "AP": of_area["all"].precision,
        "AP50": of_area["all"].precision[at[50]],
        "AP75": of_area["all"].precision[at[75]],
        **{f"AP{name[0]}": of_area[name].precision for name in ("small", "medium", "large")},
        **{f"AR{most}": of_area["all"].recall[k] for k, most in enumerate(RANKS)},
        **{f"AR{name[0]}": of_area[name].recall[-1] for name in ("small", "medium", "large")},
    }
    return {name: 100 * _mean(value) for name, value in values.items()}


def per_category(of_all: PrecisionRecall) -> dict[str, list[float]]:
    """AP and AR100 of each category (C,) in percent, NaN for one without ground truth."""
    return {"AP": (100 * of_all.precision.mean(0)).tolist(), "AR100": (100 * of_all.recall[-1].mean(0)).tolist()}


def _mean(values: np.ndarray) -> float:
    """Mean of those that are not NaN."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else float("nan")
