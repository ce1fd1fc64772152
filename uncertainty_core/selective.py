"""Selective prediction: does the uncertainty know which predictions to drop?

Everything here is a function of a *ranking*: how many samples, and how many of them events (errors, outliers), stand at
each of T levels of uncertainty, from the most certain to the least. A ranking has one level per distinct value, which
makes the curves exact, or one per bin, which makes its size independent of the number of samples. Samples of one level
are tied: curves are evaluated between levels, areas are the expectation over the order within a level.

Shapes: N samples, T levels, C classes, Q points of a curve.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .calibration import bin_index
from .checks import check_labels, check_positive_int, check_same_shape, check_unit_interval, warn_undefined
from .exact_sums import group_counts

# Levels of uncertainty as fine as bfloat16, from 2**-24 on: 128 for each power of two, one for 1, one for all below.
NUM_LEVELS = 24 * 128 + 2
_BITS_BELOW = (127 - 24) * 128 - 1


class Ranking(NamedTuple):
    """count: samples at each level (T,) int64; events: how many of them are events (T,) int64. Certain ones first."""

    count: Tensor
    events: Tensor


def uncertainty_level(uncertainty: Tensor) -> Tensor:
    """The level (...) int32 in [0, NUM_LEVELS) of each `uncertainty` (...) in [0, 1]; more certain is lower or equal.

    Levels are narrower than a hundredth of their values, down to 2**-24. Networks are certain of most pixels: of a
    thousand equal bins the first would hold most of them.
    """
    # the bits of a float, read as an integer, rise with it
    return (uncertainty.float().view(torch.int32) >> 16).sub_(_BITS_BELOW).clamp_(min=0)


def ranking(uncertainty: Tensor, event: Tensor, num_bins: int | None = None) -> Ranking:
    """Rank samples by uncertainty.

    Args:
        uncertainty: (N,), any finite numbers, or in [0, 1] if binned.
        event: (N,) bool, what the uncertainty should foretell: an error, an out-of-distribution sample.
        num_bins: None for one level per distinct value (exact, sorts); T for equal bins on [0, 1], whose counts may be
            added over batches.
    """
    check_same_shape("uncertainty", uncertainty, "event", event)
    if event.dtype != torch.bool:
        raise ValueError(f"event must be bool, got {event.dtype}")
    uncertainty, event = uncertainty.detach().flatten(), event.flatten()
    if num_bins is None:
        finite = uncertainty.isfinite()
        if not finite.all():
            index = int((~finite).nonzero()[0])
            raise ValueError(f"uncertainty must be finite, but uncertainty[{index}] is {uncertainty[index].item()}")
        level = uncertainty.unique(return_inverse=True)[1]
        num_levels = int(level.max()) + 1 if len(level) else 0
    else:
        check_positive_int("num_bins", num_bins)
        check_unit_interval("uncertainty", uncertainty)
        level, num_levels = bin_index(uncertainty, num_bins), num_bins
    cells = group_counts(level * 2 + event, 2 * num_levels).view(num_levels, 2)
    return Ranking(count=cells.sum(1), events=cells[:, 1].clone())


def risk_coverage(errors: Ranking) -> tuple[Tensor, Tensor]:
    """The risk-coverage curve (DDN fig. 3): coverage (T',) and error rate among the covered (T',), float64.

    Coverage rises; levels without samples are left out, so T' <= T.
    """
    occupied = errors.count > 0
    covered = errors.count[occupied].cumsum(0).double()
    wrong = errors.events[occupied].cumsum(0).double()
    return covered / covered[-1:], wrong / covered


def aurc(errors: Ranking) -> Tensor:
    """Area under the risk-coverage curve, the mean over n = 1..N of the error rate of the n most certain: float64."""
    total = errors.count.sum()
    if total == 0:
        warn_undefined("AURC", "there are no samples")
        return _nan_like(total)
    # A level of g samples and e errors, after n samples and w errors, adds sum_{i=1..g} (w + e·i/g) / (n + i):
    # with h = sum 1/(n+i), a difference of digammas, that is w·h + e/g · (g - n·h).
    occupied = errors.count > 0
    g, e = errors.count[occupied].double(), errors.events[occupied].double()
    n, w = g.cumsum(0) - g, e.cumsum(0) - e
    h = torch.where(g == 1, 1 / (n + 1), torch.digamma(n + g + 1) - torch.digamma(n + 1))
    return (w * h + e / g * (g - n * h)).sum() / total


def auroc(events: Ranking) -> Tensor:
    """Probability that an event is more uncertain than a non-event, ties counting half: float64."""
    positives, negatives = _positives_negatives(events)
    if not _defined(positives, negatives, "AUROC"):
        return _nan_like(positives)
    below = negatives.cumsum(0) - negatives
    favourable = (positives * (below + negatives / 2)).sum()
    return favourable / (positives.sum() * negatives.sum())


def aupr(events: Ranking) -> Tensor:
    """Average precision: precision over the events, taken from the most uncertain downwards, in steps: float64."""
    positives, negatives = _positives_negatives(events)
    if not _defined(positives, negatives, "AUPR"):
        return _nan_like(positives)
    found = positives.flip(0).cumsum(0)
    retrieved = found + negatives.flip(0).cumsum(0)
    precision = found / retrieved.clamp(min=1)
    return (precision * positives.flip(0)).sum() / positives.sum()


def fpr_at_tpr(events: Ranking, tpr: float = 0.95) -> Tensor:
    """False positive rate at the first threshold, from the most uncertain downwards, that finds `tpr` of the events.

    FPR95 with the default. float64.
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must lie in (0, 1], got {tpr}")
    positives, negatives = _positives_negatives(events)
    if not _defined(positives, negatives, "FPR"):
        return _nan_like(positives)
    found = positives.flip(0).cumsum(0)
    enough = found / positives.sum() >= tpr  # tpr times the sum would be a little more than 55 for 0.55 of 100
    return (negatives.flip(0).cumsum(0) / negatives.sum())[enough][0]


def _positives_negatives(events: Ranking) -> tuple[Tensor, Tensor]:
    return events.events.double(), (events.count - events.events).double()


def _defined(positives: Tensor, negatives: Tensor, name: str) -> bool:
    defined = bool(positives.any() and negatives.any())
    if not defined:
        warn_undefined(name, "it needs both events and non-events")
    return defined


def _nan_like(values: Tensor) -> Tensor:
    return torch.full((), torch.nan, dtype=torch.float64, device=values.device)


def confusion_by_uncertainty(
    prediction: Tensor,
    label: Tensor,
    uncertainty: Tensor,
    num_classes: int,
    num_bins: int = 1000,
    ignore_index: int | None = None,
) -> Tensor:
    """Confusion matrices (T, C, C) int64, one per bin of uncertainty, [true, predicted]; they may be added.

    Args:
        prediction: predicted classes (N,), integer.
        label: true classes (N,), integer.
        uncertainty: (N,) in [0, 1].
        num_classes: C.
        num_bins: T; 1000 keep the mIoU of a sparsification curve within 2e-5 of a full sort if the uncertainties are
            spread over [0, 1]. Of a map that is certain nearly everywhere they do not: see `PixelRanking`.
        ignore_index: label of pixels to leave out.
    """
    check_positive_int("num_bins", num_bins)
    check_unit_interval("uncertainty", uncertainty)
    check_same_shape("prediction", prediction, "label", label)
    check_same_shape("prediction", prediction, "uncertainty", uncertainty)
    check_labels("prediction", prediction, num_classes)
    check_labels("label", label, num_classes, ignore_index)
    if ignore_index is not None:
        valid = label != ignore_index
        prediction, label, uncertainty = prediction[valid], label[valid], uncertainty[valid]
    level = bin_index(uncertainty.detach().flatten(), num_bins)
    cell = (level * num_classes + label.flatten()) * num_classes + prediction.flatten()
    return group_counts(cell, num_bins * num_classes**2).view(num_bins, num_classes, num_classes)


def mean_iou(confusion: Tensor) -> Tensor:
    """Mean over the classes that occur (as truth or prediction) of the intersection over union: float64 (...).

    Args:
        confusion: (..., C, C), [true, predicted], counts or fractions of them.
    """
    return _mean_ratio(*_intersection_union(confusion.double()))


def _intersection_union(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in the intersection and in the union of each class, (..., C), of `confusion` (..., C, C)."""
    intersection = confusion.diagonal(dim1=-2, dim2=-1)
    return intersection, confusion.sum(-1) + confusion.sum(-2) - intersection


def _mean_ratio(intersection: Tensor, union: Tensor) -> Tensor:
    """Mean intersection over union (...) of the classes whose `union` (..., C) is not empty: float64 (...)."""
    occurs = union > 0
    return torch.where(occurs, intersection.double() / union, 0).sum(-1) / occurs.sum(-1)


def check_removed(removed: Sequence[float]) -> None:
    """Raise ValueError unless `removed` are rising shares in [0, 1)."""
    shares = torch.as_tensor(removed, dtype=torch.float64)
    if not ((shares >= 0) & (shares < 1)).all():
        raise ValueError(f"removed must hold shares in [0, 1), got {shares.tolist()}")
    if not (shares[1:] > shares[:-1]).all():
        raise ValueError(f"removed must rise, got {shares.tolist()}")


def sparsification(confusions: Tensor, removed: Sequence[float]) -> tuple[Tensor, Tensor]:
    """mIoU of what is left when the most uncertain share of all pixels is removed (DUDES fig. 4).

    A bin that is removed in part leaves the expected confusion matrix of a random choice from it.

    Args:
        confusions: (T, C, C) of `confusion_by_uncertainty`, from certain to uncertain.
        removed: the Q rising shares, each in [0, 1).

    Returns:
        The curve, and the oracle's that removes the wrong pixels first: float64 (Q,) each.
    """
    intersection, union = _intersection_union(confusions)
    return sparsification_of_levels(confusions.sum((1, 2)), intersection, union, removed)


def sparsification_of_levels(
    count: Tensor, intersection: Tensor, union: Tensor, removed: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """`sparsification` from what an IoU needs of T levels of uncertainty, from certain to uncertain.

    Args:
        count: pixels (T,).
        intersection, union: pixels (T, C) that each class has in either.
        removed: the Q rising shares, each in [0, 1).
    """
    check_removed(removed)
    shares = torch.as_tensor(removed, dtype=torch.float64, device=count.device)
    right = intersection.sum(0)
    oracle = (
        torch.stack((right.sum(), count.sum() - right.sum())),
        torch.stack((right, torch.zeros_like(right))),
        torch.stack((right, union.sum(0) - right)),
    )
    return _kept_iou(count, intersection, union, shares), _kept_iou(*oracle, shares)


def _kept_iou(count: Tensor, intersection: Tensor, union: Tensor, removed: Tensor) -> Tensor:
    count = count.double()
    if count.sum() == 0:
        warn_undefined("sparsification", "there are no pixels")
    before = count.cumsum(0) - count
    kept = (1 - removed)[:, None] * count.sum()
    # 0.3 of 20 pixels is 6, not 6 and the dust of a seventh, which would bring its class along
    whole = kept.round()
    kept = torch.where((kept - whole).abs() <= 1e-12 * count.sum(), whole, kept)
    share = ((kept - before) / count.clamp(min=1)).clamp(0, 1)  # (Q, T) of each level that is left
    return _mean_ratio(share @ intersection.double(), share @ union.double())


def ause(curve: Tensor, oracle: Tensor, removed: Sequence[float]) -> Tensor:
    """Area between the oracle's sparsification curve and a model's, by trapezoids: float64, 0 is perfect.

    Args:
        curve, oracle: mIoU (Q,) at each share, as `sparsification` returns them.
        removed: the Q rising shares.
    """
    shares = torch.as_tensor(removed, dtype=torch.float64, device=curve.device)
    return torch.trapezoid(oracle - curve, shares)
