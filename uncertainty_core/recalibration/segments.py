"""Calibrators of scores with segments, a line on each part of [0, 1]: histogram, isotonic and linear.

They are fitted to targets in [0, 1], hit or miss or the IoU itself, with the least mean squared distance.

Shapes: N scores, C classes, K segments or knots.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import check_positive_int
from ..functional.calibration import bin_statistics
from .base import CalibratorError, register
from .scores import ScoreCalibrator, check_fit, check_line, check_scores


@dataclass(frozen=True)
class _Segments(ScoreCalibrator):
    def __post_init__(self) -> None:
        self._check()
        # made here, since what is made while torch traces cannot be kept
        table = torch.tensor(self.segments, dtype=torch.float64).T.contiguous()
        object.__setattr__(self, "_table", table)  # (3, K)

    def _check(self) -> None:
        raise NotImplementedError

    @property
    def segments(self) -> list[tuple[float, float, float]]:
        """Left end, value there, and slope of each segment; the first begins at 0, each holds its right end."""
        raise NotImplementedError

    def __call__(self, score: Tensor, category: Tensor | None = None) -> Tensor:
        """The calibrated scores; differentiable inside of segments."""
        check_scores(score)
        exact = score.double()
        return _on_segments(self._table[0, 1:], self._table, exact, exact).to(score.dtype)

    @classmethod
    def stacked(cls, maps: Sequence["_Segments"]) -> Callable[[Tensor, Tensor], Tensor]:
        """One function of float64 scores and categories that does what `maps`, one of each class, do."""
        # all of class c lie between 2c - 1 and 2c + 1, where one search finds them
        starts = [single._table[0].index_fill(0, torch.tensor(0), -1) + 2 * c for c, single in enumerate(maps)]
        return partial(_on_stacked_segments, torch.cat(starts)[1:], torch.cat([single._table for single in maps], 1))


def _on_stacked_segments(limits: Tensor, table: Tensor, score: Tensor, category: Tensor) -> Tensor:
    return _on_segments(limits, table, score, score + 2 * category)


def _on_segments(limits: Tensor, table: Tensor, score: Tensor, place: Tensor) -> Tensor:
    """Values of the lines (3, K) in `table` at `score`, each on the segment between whose `limits` its `place` is."""
    place, limits = place.detach().contiguous(), limits.to(score.device).contiguous()
    search = _searched if torch.onnx.is_in_onnx_export() else torch.bucketize
    segment = search(place, limits)
    left, value, slope = table.to(score.device)[:, segment].unbind(0)
    return (value + slope * (score - left)).clamp(0, 1)


def _searched(place: Tensor, limits: Tensor) -> Tensor:
    """`torch.bucketize` in log2(K) steps that ONNX has, which else would compare each number with each limit."""
    steps = [2**k for k in reversed(range(len(limits).bit_length()))]
    ends = torch.nn.functional.pad(limits, (0, sum(steps) - len(limits)), value=torch.inf)
    below = torch.zeros_like(place, dtype=torch.int64)  # limits that are known to be
    for step in steps:
        below = below + step * (ends[below + step - 1] < place)
    return below


@register
@dataclass(frozen=True)
class Histogram(_Segments):
    """The mean target of each of K equal bins, ((k-1)/K, k/K]."""

    kind: ClassVar[str] = "histogram"
    values: tuple[float, ...]

    def _check(self) -> None:
        if not self.values or not all(0 <= value <= 1 for value in self.values):
            raise CalibratorError(f"the values of a histogram must be some in [0, 1], got {self.values}")

    @property
    def segments(self) -> list[tuple[float, float, float]]:
        """Left end, value and slope."""
        return [(k / len(self.values), value, 0.0) for k, value in enumerate(self.values)]


@register
@dataclass(frozen=True)
class Isotonic(_Segments):
    """A rising line through knots, level beyond the first and the last."""

    kind: ClassVar[str] = "isotonic"
    x: tuple[float, ...] = (0.0, 1.0)
    y: tuple[float, ...] = (0.0, 1.0)

    def _check(self) -> None:
        if not self.x or len(self.x) != len(self.y):
            raise CalibratorError(f"isotonic knots need as many x as y, got {len(self.x)} and {len(self.y)}")
        if not all(0 <= value <= 1 for value in (*self.x, *self.y)):
            raise CalibratorError("isotonic knots must lie in [0, 1]")
        if not all(a < b for a, b in pairwise(self.x)) or not all(a <= b for a, b in pairwise(self.y)):
            raise CalibratorError("isotonic knots must rise")

    @property
    def segments(self) -> list[tuple[float, float, float]]:
        """Left end, value and slope."""
        knots = list(zip(self.x, self.y, strict=True))
        rising = [(x, y, (after - y) / (right - x)) for (x, y), (right, after) in pairwise(knots)]
        level = (self.x[-1], self.y[-1], 0.0)
        return [(0.0, self.y[0], 0.0), *rising, level]


@register
@dataclass(frozen=True)
class Linear(_Segments):
    """slope · s + intercept, clipped to [0, 1], slope >= 0."""

    kind: ClassVar[str] = "linear"
    slope: float = 1.0
    intercept: float = 0.0

    def _check(self) -> None:
        check_line(self.kind, self.slope, self.intercept)

    @property
    def at_bound(self) -> bool:
        """See `ScoreCalibrator`."""
        return self.slope == 0

    @property
    def segments(self) -> list[tuple[float, float, float]]:
        """Left end, value and slope."""
        return [(0.0, self.intercept, self.slope)]


def fit_histogram(score: Tensor, target: Tensor, num_bins: int = 15) -> Histogram:
    """The mean of `target` in each bin of `score`; the middle of a bin that is empty. See `fit_temperature`."""
    score, target = check_fit(score, target)
    check_positive_int("num_bins", num_bins)
    bins = bin_statistics(score, target, num_bins)
    middle = (torch.arange(num_bins, dtype=torch.float64) + 0.5) / num_bins
    return Histogram(tuple(torch.where(bins.count > 0, bins.success_frequency, middle).clamp(0, 1).tolist()))


def fit_isotonic(score: Tensor, target: Tensor) -> Isotonic:
    """The rising function with the least squared distance from `target`. Arguments as `fit_temperature`."""
    x, y = isotonic_knots(*check_fit(score, target))
    return Isotonic(tuple(x), tuple(y))


def fit_linear(score: Tensor, target: Tensor) -> Linear:
    """The line with slope >= 0 and the least squared distance from `target`. Arguments as `fit_temperature`."""
    score, target = check_fit(score, target)
    away = score - score.mean()
    variance, covariance = away.square().sum(), (away * (target - target.mean())).sum()
    slope = (covariance / variance).clamp(min=0) if variance > 0 else variance
    return Linear(slope.item(), (target.mean() - slope * score.mean()).item())


def isotonic_knots(x: Tensor, y: Tensor) -> tuple[list[float], list[float]]:
    """The knots (K,) of the rising function nearest to the float64 samples `x`, `y` (N,), N >= 1.

    Samples of equal x count as one, by their mean. Between knots the function is a line, beyond them it is level.
    """
    at, group = x.unique(return_inverse=True)
    weight = torch.bincount(group).double()
    mean = torch.zeros_like(at).index_add_(0, group, y) / weight
    first, last, value = pool_adjacent_violators(mean.tolist(), weight.tolist())
    at = at.tolist()
    xs, ys = [], []
    for start, end, level in zip(first, last, value, strict=True):
        for k in (start, end) if start < end else (start,):
            xs.append(at[k])
            ys.append(level)
    return xs, ys


def pool_adjacent_violators(mean: list[float], weight: list[float]) -> tuple[list[int], list[int], list[float]]:
    """Blocks of neighbours that become equal: the first and the last of each, and their common value.

    Args:
        mean: values in order.
        weight: how much each counts.
    """
    first, total, weights = [], [], []
    for k, (value, amount) in enumerate(zip(mean, weight, strict=True)):
        start, amounted = k, value * amount
        # blocks that are not below what follows join it
        while first and total[-1] * amount >= amounted * weights[-1]:
            start = first.pop()
            amounted += total.pop()
            amount += weights.pop()
        first.append(start)
        total.append(amounted)
        weights.append(amount)
    last = [*(start - 1 for start in first[1:]), len(mean) - 1]
    return first, last, [amounted / amount for amounted, amount in zip(total, weights, strict=True)]
