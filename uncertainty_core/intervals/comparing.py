"""Metrics of predictors on resampled images: an interval for each, and for the differences between two of them.

Shapes: I images, R resamples, S seeds.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalog import metric
from .resampling import NUM_RESAMPLES, Interval, Measure, image_weights, interval, seed_draws
from .storage import Images

_BLOCK = 50  # resamples at a time, so that sums of many cells stay small


@dataclass(frozen=True)
class Resampled:
    """The metrics of one predictor, by name: values, and those of each resample (R,); costly ones have fewer."""

    values: Mapping[str, float]
    resamples: Mapping[str, Tensor]

    def around(self, values: Mapping[str, float]) -> "Resampled":
        """Those of the metrics that `values` has, moved to these, which were measured more finely."""
        common = {name: values[name] for name in self.values if name in values}
        return Resampled(
            common, {name: self.resamples[name] + (value - self.values[name]) for name, value in common.items()}
        )

    def interval(self, name: str) -> Interval:
        """Of the metric called `name`; one that is never negative has no negative end."""
        low, high = interval(self.values[name], self.resamples[name])
        return Interval(low if metric(name).signed else max(low, 0.0), high)

    @property
    def intervals(self) -> dict[str, Interval]:
        """Of every metric whose interval is known."""
        found = {name: self.interval(name) for name in self.values}
        return {name: ends for name, ends in found.items() if not math.isnan(ends.low)}


def resample(
    images: Images,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    measures: Mapping[Measure, int] | None = None,
) -> Resampled:
    """Metrics of the `images`, and of as many resamples of them.

    Args:
        images: what is kept of them.
        num_resamples: R.
        seed: of the draws.
        measures: what gives metrics, and of how many resamples at the most; all that the images have by default.
    """
    measures = measures or images.measures
    drawn = image_weights(images.ids, min(num_resamples, max(measures.values())), seed)
    once = torch.ones(len(images.ids), 1, dtype=torch.float64)
    values: dict[str, float] = {}
    resamples: dict[str, Tensor] = {}
    with warnings.catch_warnings():  # some resamples lack what a metric needs
        warnings.filterwarnings("ignore", ".* is NaN", RuntimeWarning)
        for measure, most in measures.items():
            values |= {name: value.item() for name, value in measure(once).items()}
            blocks = [measure(weights.float()) for weights in drawn[:, :most].split(_BLOCK, dim=1)]
            resamples |= {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
    return Resampled(values, resamples)


def over_seeds(runs: Sequence[Resampled], key: str = "") -> Resampled:
    """The mean over the seeds of a predictor; resamples draw seeds as well as images.

    Args:
        runs: one for each seed, resampled alike.
        key: of the predictor: others draw their seeds independently.
    """
    if len(runs) == 1:
        return runs[0]
    names = [name for name in runs[0].values if all(name in run.values for run in runs)]
    weights = seed_draws(len(runs), max(map(len, runs[0].resamples.values())), key)
    return Resampled(
        {name: sum(run.values[name] for run in runs) / len(runs) for name in names},
        {name: _mean(name, [run.resamples[name] for run in runs], weights) for name in names},
    )


def _mean(name: str, resamples: Sequence[Tensor], weights: Tensor) -> Tensor:
    stacked = torch.stack(list(resamples))
    mean = (stacked * weights[:, : stacked.shape[1]]).sum(0)
    # a weight may be negative, the mean of a metric that never is may not
    return mean if metric(name).signed else mean.clamp(min=0)


@dataclass(frozen=True)
class Difference:
    """Of a metric of one predictor from that of another on the same images, and its interval.

    absolute: in the metric's own unit; relative: as a share of the other's value.
    """

    absolute: float
    absolute_interval: Interval
    relative: float
    relative_interval: Interval

    @property
    def is_known(self) -> bool:
        """Whether the interval excludes 0."""
        return self.absolute_interval.excludes_zero


def difference(ours: Resampled, theirs: Resampled, name: str) -> Difference:
    """How much the metric called `name` is more in `ours` than in `theirs`, which were resampled alike.

    The relative difference takes the other's value as it is; so both intervals exclude 0, or neither does. A metric
    that is never negative cannot be less by more than the other's value.
    """
    value = ours.values[name] - theirs.values[name]
    ends = interval(value, ours.resamples[name] - theirs.resamples[name])
    if not metric(name).signed:
        ends = Interval(max(ends.low, -theirs.values[name]), ends.high)
    whole = abs(theirs.values[name]) or math.nan
    return Difference(value, ends, value / whole, Interval(ends.low / whole, ends.high / whole))
