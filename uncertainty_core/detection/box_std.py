"""Whether the standard deviations of boxes tell how far off they are: on true positives, whose errors are known.

Shapes: D detections, N true positives, S = 4N their sides, R draws from the images. The four sides of a box are left,
top, right and bottom, in pixels.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from ..functional.scores import crps_gaussian
from .coco_format import Detections, GroundTruth

LEVELS = (0.5, 0.9, 0.95)  # of the intervals whose coverage is counted
NUM_BINS = 10  # of ENCE, of equally many sides
SMALLEST = 1e-6  # pixels, so that a deviation of 0 has a likelihood


@dataclass(frozen=True, eq=False)
class BoxErrors:
    """True positives, and what their deviations are compared with.

    image: index of the image (N,).
    error: of each side (N, 4), ground truth less detection.
    std: the deviation of each (N, 4).
    size: width and height of the detection (N, 2).
    iou: with the ground truth (N,).
    """

    image: np.ndarray
    error: np.ndarray
    std: np.ndarray
    size: np.ndarray
    iou: np.ndarray

    @classmethod
    def of(
        cls, ground_truth: GroundTruth, detections: Detections, truth: np.ndarray, iou: np.ndarray, counts: np.ndarray
    ) -> "BoxErrors":
        """Of some of the detections.

        Args:
            ground_truth, detections: boxes.
            truth: the box that each detection found (D,).
            iou: with it (D,).
            counts: detections to look at, each of which found one (D,), bool.
        """
        box, target = detections.box[counts], ground_truth.box[truth[counts]]
        near = target[:, :2] - box[:, :2]
        error = np.concatenate((near, near + target[:, 2:] - box[:, 2:]), 1)
        std = np.maximum(detections.box_std[counts], SMALLEST)
        return cls(detections.image[counts], error, std, box[:, 2:], iou[counts])


def width(level: float) -> float:
    """How many deviations an interval of a Gaussian reaches to each side: 1.64 for the level 0.9."""
    return NormalDist().inv_cdf((1 + level) / 2)


def metrics(found: BoxErrors, weights: Tensor | None = None, factor: float | None = None) -> dict[str, Tensor]:
    """By name (R,), NaN without true positives.

    box_nll: mean negative log-likelihood of a Gaussian, in pixels.
    box_crps: mean energy score of a Gaussian, `crps_gaussian`, in pixels.
    coverage50, ...: share of sides whose error lies in the interval of that level.
    coverage90_conformal: of 90 % with deviations times `factor`, if that is given.
    box_ence: expected normalised calibration error: of sides in ten bins by their deviation, each of equally many, the
        mean of |RMS error - RMS deviation| / RMS deviation.
    box_rank: Spearman's correlation of the deviation, relative to the size of the box and averaged over its sides, with
        1 - IoU; 1 if the worst boxes are the most uncertain.

    Args:
        found: true positives.
        weights: how often each is drawn (N, R); None for once.
        factor: for the deviations, fitted to other images, see `conformal_factor`.
    """
    error, std, size, iou = (torch.from_numpy(a).double() for a in (found.error, found.std, found.size, found.iou))
    weights = torch.ones(len(iou), 1, dtype=torch.float64) if weights is None else weights.double()
    sides = {
        "box_nll": std.log() + (error / std).square() / 2 + np.log(2 * np.pi) / 2,
        "box_crps": crps_gaussian(error, std),
        **{f"coverage{100 * level:g}": error.abs() <= width(level) * std for level in LEVELS},
    }
    if factor is not None:
        sides["coverage90_conformal"] = error.abs() <= width(0.9) * factor * std
    count = weights.sum(0)
    means = {name: values.double().mean(1) @ weights / count for name, values in sides.items()}
    relative = (std / size.repeat(1, 2)).mean(1)
    return means | {
        "box_ence": _ence(error.flatten(), std.flatten(), weights.repeat_interleave(4, 0)),
        "box_rank": _rank_correlation(relative, 1 - iou, weights),
    }


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


def _ence(error: Tensor, std: Tensor, weights: Tensor) -> Tensor:
    """See `metrics`: (R,) of `error` and `std` (S,), each drawn `weights` (S, R) times."""
    order = std.argsort(stable=True)
    error, std, drawn = error[order].square(), std[order].square(), weights[order].T.contiguous()
    until = drawn.cumsum(1)  # copies up to each side, (R, S)
    if not len(order):
        return torch.full((len(until),), torch.nan, dtype=torch.float64)
    number = torch.arange(NUM_BINS + 1)
    # as np.array_split: the first bins have one more where the number of copies is no multiple
    size = until[:, -1:].long()
    limit = (number * (size // NUM_BINS) + torch.minimum(number, size % NUM_BINS)).double()  # (R, NUM_BINS + 1)
    last = torch.searchsorted(until, limit).clamp(max=len(order) - 1)  # the side whose copies reach the limit

    def rms(values: Tensor) -> Tensor:
        beyond = until.gather(1, last) - limit  # copies of that side which belong to the next bin
        sums = ((drawn * values).cumsum(1).gather(1, last) - beyond * values[last]).diff()
        return (sums.clamp(min=0) / limit.diff()).sqrt()

    predicted = rms(std)
    return ((rms(error) - predicted).abs() / predicted).nanmean(1)


def _rank_correlation(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """Spearman's (R,) of two values (N,) that are drawn `weights` (N, R) times; equal ones share their mean rank."""
    count = weights.sum(0)
    ranks = []
    for values in (one, other):
        levels, place = values.unique(return_inverse=True)
        copies = weights.new_zeros(len(levels), weights.shape[1]).index_add_(0, place, weights)
        rank = (copies.cumsum(0) - (copies - 1) / 2)[place]
        ranks.append(rank - (weights * rank).sum(0) / count)
    a, b = ranks
    scale = ((weights * a.square()).sum(0) * (weights * b.square()).sum(0)).sqrt()
    return (weights * a * b).sum(0) / scale
