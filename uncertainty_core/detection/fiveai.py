"""LaECE and LaACE as fiveai/detection_calibration computes them, to compare with numbers published with it.

Written anew from what that code returns. It differs from `calibration` in this:

- boxes that do not overlap match at the threshold 0 (`matching.candidate_pairs`);
- detections that are ignored, as in crowds, count in LaACE with an IoU of 0;
- a category is left out of the mean where its error is 0, and where it has no ground truth;
- the edges of the bins are multiples of a rounded 1/25, so that a score of 0.28, say, falls into the next bin.

Shapes: N detections, C categories.
"""

import numpy as np

NUM_BINS = 25


def localisation_errors(
    score: np.ndarray, iou: np.ndarray, category: np.ndarray, ignored: np.ndarray, num_ground_truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Laece and laace of each category (C,), NaN for one that the means leave out.

    Args:
        score: (N,).
        iou: with the box found, 0 for a false positive and for what is ignored (N,).
        category: (N,) integers in [0, C).
        ignored: (N,) bool.
        num_ground_truth: boxes of each category (C,).
    """
    num_categories = len(num_ground_truth)

    def per_category(values: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.bincount(index, values, minlength=num_categories)

    counted = ~ignored
    bins = np.searchsorted(np.linspace(0, 1, NUM_BINS + 1), score[counted], side="left").clip(min=1) - 1
    cell = category[counted] * NUM_BINS + bins
    gap = np.bincount(cell, iou[counted] - score[counted], minlength=num_categories * NUM_BINS)
    count = per_category(counted, category)
    left_out = (count == 0) | (num_ground_truth == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = {
            "laece": np.abs(gap).reshape(num_categories, NUM_BINS).sum(1) / count,
            "laace": per_category(np.abs(iou - score), category) / per_category(np.ones(len(score)), category),
        }
    return {name: np.where(left_out | (values == 0), np.nan, values) for name, values in errors.items()}
