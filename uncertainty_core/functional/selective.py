"""Selective prediction: does the uncertainty know which predictions to drop?

Everything here is a function of a *ranking*: how many samples, and how many of them events (errors, outliers), stand at
each of T levels of uncertainty, from the most certain to the least. A ranking has one level per distinct value, which
makes the curves exact, or one per bin, which makes its size independent of the number of samples. Samples of one level
are tied: curves are evaluated between levels, areas are the expectation over the order within a level.

Shapes: N samples, T levels, C classes, Q points of a curve.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_positive_int, check_same_shape, check_unit_interval, warn_undefined
from ..streaming.exact_sums import group_counts
from .calibration import bin_index


class Ranking(NamedTuple):
    """count: samples at each level (T,) int64; events: how many of them are events (T,) int64. Certain ones first."""

    count: Tensor
    events: Tensor


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
    """Area under the risk-coverage curve, the mean over n = 1..N of the error rate of the n most certain: float64.

    This and what follows take several rankings as well, (..., T), and return (...).
    """
    total = errors.count.sum(-1)
    if (total == 0).any():
        warn_undefined("AURC", "there are no samples")
    # A level of g samples and e errors, after n samples and w errors, adds sum_{i=1..g} (w + e·i/g) / (n + i):
    # with h = sum 1/(n+i), a difference of digammas, that is w·h + e/g · (g - n·h).
    g, e = errors.count.double(), errors.events.double()
    n, w = g.cumsum(-1) - g, e.cumsum(-1) - e
    h = torch.where(g == 1, 1 / (n + 1), torch.digamma(n + g + 1) - torch.digamma(n + 1))
    return (w * h + e / g.clamp(min=1) * (g - n * h)).sum(-1) / total


def auroc(events: Ranking) -> Tensor:
    """Probability that an event is more uncertain than a non-event, ties counting half: float64."""
    positives, negatives = _positives_negatives(events, "AUROC")
    below = negatives.cumsum(-1) - negatives
    favourable = (positives * (below + negatives / 2)).sum(-1)
    return favourable / (positives.sum(-1) * negatives.sum(-1))


def aupr(events: Ranking) -> Tensor:
    """Average precision: precision over the events, taken from the most uncertain downwards, in steps: float64."""
    positives, negatives = _positives_negatives(events, "AUPR")
    found = positives.flip(-1).cumsum(-1)
    retrieved = found + negatives.flip(-1).cumsum(-1)
    precision = found / retrieved.clamp(min=1)
    return (precision * positives.flip(-1)).sum(-1) / positives.sum(-1)


def fpr_at_tpr(events: Ranking, tpr: float = 0.95) -> Tensor:
    """False positive rate at the first threshold, from the most uncertain downwards, that finds `tpr` of the events.

    FPR95 with the default. float64.
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must lie in (0, 1], got {tpr}")
    positives, negatives = _positives_negatives(events, "FPR")
    positives, negatives = positives.flip(-1), negatives.flip(-1)
    # tpr times the sum would be a little more than 55 for 0.55 of 100
    found_before = (positives.cumsum(-1) - positives) / positives.sum(-1, keepdim=True)
    return (negatives * (found_before < tpr)).sum(-1) / negatives.sum(-1)


def detection_areas(events: Ranking, prefix: str = "") -> dict[str, Tensor]:
    """How well the uncertainty finds events: auroc, aupr and fpr95 by name, with `prefix` before it."""
    metrics = {"auroc": auroc, "aupr": aupr, "fpr95": fpr_at_tpr}
    return {prefix + name: metric(events) for name, metric in metrics.items()}


def _positives_negatives(events: Ranking, name: str) -> tuple[Tensor, Tensor]:
    """Events and others at each level, float64 (..., T); all NaN where there are none of either."""
    positives, negatives = events.events.double(), (events.count - events.events).double()
    undefined = ~(positives.any(-1, keepdim=True) & negatives.any(-1, keepdim=True))
    if undefined.any():
        warn_undefined(name, "it needs both events and non-events")
    return positives.masked_fill(undefined, torch.nan), negatives.masked_fill(undefined, torch.nan)
