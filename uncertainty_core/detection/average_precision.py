"""Average precision and recall as COCO defines them, from the outcome of every detection.

Shapes: D detections, C categories, T IoU thresholds, R recall thresholds, L limits of the number of detections.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from . import federated
from .coco_format import Detections
from .federated import FREQUENCIES, FederatedLabels
from .matching import IGNORED, MAX_DETECTIONS, TRUE_POSITIVE

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0, 1, 101)
COCO_RANKS, LVIS_RANKS = (1, 10, MAX_DETECTIONS), (federated.MAX_DETECTIONS,)


class PrecisionRecall(NamedTuple):
    """Of one area range, NaN for a category without ground truth.

    precision: mean over the R recalls of the interpolated precision (T, C).
    recall: of so many detections of each image and category as `ranks` has (L, T, C).
    """

    precision: np.ndarray
    recall: np.ndarray
    ranks: tuple[int, ...]


def by_category(detections: Detections) -> np.ndarray:
    """Indices of the detections (D,) by category, then by falling score.

    Of equal scores the one that was higher before recalibration comes first, then the one that stands first.
    """
    return np.lexsort((-detections.score_before, -detections.score, detections.category))


def precision_recall(
    outcome: np.ndarray,
    in_order: np.ndarray,
    category: np.ndarray,
    rank: np.ndarray,
    num_ground_truth: np.ndarray,
    ranks: tuple[int, ...] = COCO_RANKS,
) -> PrecisionRecall:
    """Precision and recall of one area range.

    Args:
        outcome: of each detection at each threshold (T, D), as `matching.outcome` gives it.
        in_order: indices of the detections by category, then by falling score (D,), see `by_category`.
        category: (D,).
        rank: of each detection in its image and category (D,).
        num_ground_truth: boxes that count in each category (C,).
        ranks: how many of each image and category to take for the recall (L,).
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
    hits = np.stack([np.bincount(cell[rank[found] < most], minlength=size) for most in ranks])
    with np.errstate(invalid="ignore"):
        recall = hits.reshape(len(ranks), num_thresholds, num_categories) / num_ground_truth
    return PrecisionRecall(precision, recall, ranks)


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


def summarize(of_area: Mapping[str, PrecisionRecall], labels: FederatedLabels | None = None) -> dict[str, float]:
    """COCO's twelve numbers in percent, or LVIS's thirteen, as Detectron2 gives them.

    Args:
        of_area: results of the area ranges "all", "small", "medium" and "large".
        labels: of federated annotations.

    NaN where no category has ground truth.
    """
    everywhere = of_area["all"]
    at = {t: int(np.abs(IOU_THRESHOLDS - t / 100).argmin()) for t in (50, 75)}
    values = {
        "AP": everywhere.precision,
        "AP50": everywhere.precision[at[50]],
        "AP75": everywhere.precision[at[75]],
        **{f"AP{name[0]}": of_area[name].precision for name in ("small", "medium", "large")},
        **{f"AP{f}": everywhere.precision[:, labels.categories_of(f)] for f in FREQUENCIES if labels is not None},
        **{f"AR{most}": everywhere.recall[k] for k, most in enumerate(everywhere.ranks)},
        **{f"AR{name[0]}": of_area[name].recall[-1] for name in ("small", "medium", "large")},
    }
    return {name: 100 * _mean(value) for name, value in values.items()}


def per_category(of_all: PrecisionRecall) -> dict[str, list[float]]:
    """AP and AR100, or AR300, of each category (C,) in percent, NaN for one without ground truth."""
    recall = f"AR{of_all.ranks[-1]}"
    return {"AP": (100 * of_all.precision.mean(0)).tolist(), recall: (100 * of_all.recall[-1].mean(0)).tolist()}


def _mean(values: np.ndarray) -> float:
    """Mean of those that are not NaN."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else float("nan")
