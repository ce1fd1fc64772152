"""Which predictions to accept, so that no more than a wanted share of them is wrong, and how sure that is.

Shapes: N samples.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_positive_int, check_same_shape
from .selective import ranking


class RiskThreshold(NamedTuple):
    """What to accept: predictions whose uncertainty is below `threshold`.

    threshold: infinity accepts all predictions, minus infinity none.
    coverage: the share of the samples that it accepts.
    risk: the error rate among those; NaN where there are none.
    bound: what the error rate of new predictions exceeds with a probability of at most `delta`.
    """

    threshold: float
    coverage: float
    risk: float
    bound: float


def threshold_for_risk(
    uncertainty: Tensor, error: Tensor, risk: float, delta: float = 0.05, num_coverages: int = 20
) -> RiskThreshold:
    """The threshold that accepts most, with an error rate of at most `risk` among new predictions it accepts.

    The guarantee: if samples and new predictions are drawn independently from one distribution, the samples are such
    that the accepted new predictions have an error rate above `risk` with a probability of at most `delta`. As Geifman
    and El-Yaniv (2017) do it: the samples below a threshold that is itself a sample are independent draws of what the
    threshold accepts, so the bound of Clopper and Pearson (1934) holds for them; the thresholds that are tried share
    `delta`. Pixels of one image are not independent: draw few from each of many images.

    Args:
        uncertainty: (N,) of held-out samples, finite; of a confidence take 1 less it.
        error: (N,) bool, whether the prediction is wrong.
        risk: the error rate that is wanted, in (0, 1).
        delta: how likely it may be missed, in (0, 1).
        num_coverages: how many thresholds are tried; they accept 1/num_coverages of the samples, 2/num_coverages, ...,
            all.

    Example:
        >>> uncertainty = torch.arange(200) / 200
        >>> threshold_for_risk(uncertainty, uncertainty >= 0.9, risk=0.04).coverage
        0.9

    """
    check_same_shape("uncertainty", uncertainty, "error", error)
    check_positive_int("num_coverages", num_coverages)
    for name, value in (("risk", risk), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie in (0, 1), got {value}")
    levels, total = ranking(uncertainty, error), uncertainty.numel()  # which checks both
    values = uncertainty.detach().flatten().unique()
    # how many samples, and how many errors, lie below each value; below infinity all do
    below, wrong = (torch.cat((counts.new_zeros(1), counts.cumsum(0))).cpu() for counts in levels)
    for number in range(num_coverages, 0, -1):
        wanted = total * number // num_coverages
        at = int(torch.searchsorted(below, wanted, right=True)) - 1
        accepted, errors = int(below[at]), int(wrong[at])
        if accepted and _probability_of_at_most(errors, accepted, risk) <= delta / num_coverages:
            threshold = float(values[at]) if at < len(values) else float("inf")
            bound = clopper_pearson(errors, accepted, delta / num_coverages)
            return RiskThreshold(threshold, accepted / total, errors / accepted, bound)
    return RiskThreshold(float("-inf"), 0.0, float("nan"), 1.0)


def clopper_pearson(events: int, total: int, delta: float) -> float:
    """The upper bound of a probability, of which `total` independent draws gave `events`, at level 1 - `delta`.

    It is the largest probability under which so few events are as likely as `delta`; 1 without draws.
    """
    if events >= total:
        return 1.0
    low, high = events / total, 1.0
    for _ in range(60):  # halvings, after which a float64 has no room left
        middle = (low + high) / 2
        if _probability_of_at_most(events, total, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def _probability_of_at_most(events: int, total: int, probability: float) -> float:
    """Of so many events or fewer in `total` draws (the binomial distribution)."""
    k = torch.arange(events + 1, dtype=torch.float64)
    p, n = torch.tensor(probability, dtype=torch.float64), torch.tensor(total, dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return float((ways + torch.xlogy(k, p) + torch.special.xlog1py(n - k, -p)).logsumexp(0).exp())
