"""Whether the standard deviations of boxes tell how far off they are: on true positives, whose errors are known.

Shapes: D detections, N true positives. The four sides of a box are left, top, right and bottom, in pixels.
"""

from statistics import NormalDist

import numpy as np

from .coco_format import Detections, GroundTruth

LEVELS = (0.5, 0.9, 0.95)  # of the intervals whose coverage is counted
NUM_BINS = 10  # of ENCE, of equally many sides
SMALLEST = 1e-6  # pixels, so that a deviation of 0 has a likelihood


def errors(
    ground_truth: GroundTruth, detections: Detections, truth: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What deviations are compared with.

    Args:
        ground_truth, detections: boxes.
        truth: the box that each detection found (D,).
        counts: detections to look at, each of which found one (D,), bool.

    Returns:
        error: of each side (N, 4), ground truth less detection.
        std: the deviation of each (N, 4).
        size: width and height of the detection (N, 2).
    """
    box, target = detections.box[counts], ground_truth.box[truth[counts]]
    near = target[:, :2] - box[:, :2]
    error = np.concatenate((near, near + target[:, 2:] - box[:, 2:]), 1)
    return error, np.maximum(detections.box_std[counts], SMALLEST), box[:, 2:]


def width(level: float) -> float:
    """How many deviations an interval of a Gaussian reaches to each side: 1.64 for the level 0.9."""
    return NormalDist().inv_cdf((1 + level) / 2)


def metrics(error: np.ndarray, std: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """By name, all of `errors`' values.

    box_nll: mean negative log-likelihood of a Gaussian, in pixels.
    coverage50, ...: share of sides whose error lies in the interval of that level.
    box_ence: expected normalised calibration error: of sides in ten bins by their deviation, each of equally many, the
        mean of |RMS error - RMS deviation| / RMS deviation.
    box_rank: Spearman's correlation of the deviation, relative to the size of the box and averaged over its sides, with
        the error likewise; 1 if the worst boxes are the most uncertain.
    """
    if not len(error):
        names = ("box_nll", *(f"coverage{100 * level:g}" for level in LEVELS), "box_ence", "box_rank")
        return dict.fromkeys(names, float("nan"))
    nll = np.log(std) + (error / std) ** 2 / 2 + np.log(2 * np.pi) / 2
    coverage = {f"coverage{100 * level:g}": (np.abs(error) <= width(level) * std).mean() for level in LEVELS}
    relative = [np.abs(values / np.tile(size, 2)).mean(1) for values in (std, error)]
    found = {"box_nll": nll.mean(), **coverage, "box_ence": _ence(error.ravel(), std.ravel())}
    found["box_rank"] = _rank_correlation(*relative)
    return {name: float(value) for name, value in found.items()}


def conformal_factor(error: np.ndarray, std: np.ndarray, level: float = 0.9) -> float:
    """What to multiply deviations by so that intervals of `level` cover that share of new sides (split conformal).

    The interval of a new side reaches the k-th smallest of the n held-out |error| / std, k = ceil((n + 1) level).

    Args:
        error, std: of held-out sides (n, ...).
        level: of the intervals.
    """
    ratio = np.sort(np.abs(error / std), axis=None)
    k = int(np.ceil((len(ratio) + 1) * level))
    if k > len(ratio):
        raise ValueError(f"intervals of level {level:g} need more than the {len(ratio)} sides of held-out boxes")
    return float(ratio[k - 1] / width(level))


def _ence(error: np.ndarray, std: np.ndarray) -> float:
    """See `metrics`; of (n,)."""
    bins = [part for part in np.array_split(np.argsort(std, kind="stable"), NUM_BINS) if len(part)]
    observed, predicted = (np.array([np.sqrt((values[part] ** 2).mean()) for part in bins]) for values in (error, std))
    return float((np.abs(observed - predicted) / predicted).mean())


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of (n,); equal values share the mean of their ranks."""
    ranks = []
    for values in (one, other):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    a, b = (rank - rank.mean() for rank in ranks)
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale else float("nan")
