"""Resamples of images, and intervals from what is measured on them.

A bootstrap draws images with replacement. Here each image is drawn by itself, a Poisson number of times with mean 1.
The numbers depend on the seed, the resample and the image's id alone: so an image has the same weights in every order,
shard and process, and predictors on the same images share them, which makes their differences paired.

Shapes: I images, R resamples.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..sampling.mc_dropout import derive_seed

Measure = Callable[[Tensor], dict[str, Tensor]]  # from weights (I, R) to metrics (R,) by name

NUM_RESAMPLES = 1000
LEVEL = 0.95

_MOST = 12  # beyond which a Poisson number with mean 1 is rarer than one in a thousand million
_CUMULATIVE = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(_MOST)])


def image_weights(ids: Iterable[Hashable], num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Tensor:
    """How often each resample draws each image: uint8 (I, R). More resamples leave the first ones as they are."""
    rows = [_row(image_id, num_resamples, seed) for image_id in ids]
    return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, num_resamples, dtype=torch.uint8)


def _row(image_id: Hashable, num_resamples: int, seed: int) -> np.ndarray:
    # the raw bits of a generator stay the same in all versions of numpy; its distributions may not
    bits = np.random.Philox(key=derive_seed(seed, "resamples", str(image_id))).random_raw(num_resamples)
    return np.searchsorted(_CUMULATIVE, (bits >> np.uint64(11)) * 2.0**-53, side="right").astype(np.uint8)


class Interval(NamedTuple):
    """From `low` to `high`; both NaN where nothing is known."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign is known."""
        return self.low > 0 or self.high < 0


def interval(value: float, resampled: Tensor, level: float = LEVEL) -> Interval:
    """The interval of a `value`, given the same of each resample (R,); it contains the value.

    Errors of calibration, being sums of distances, come out too large in small samples, and larger still in resamples.
    By how much the resamples exceed the value estimates the bias that is in the value already. The spread of the
    resamples is laid around the value less this bias, and made wider by the bias on both sides, because it is known
    but roughly. Without a bias this is the interval of percentiles.

    NaN where the value, or more than half of the resamples, are undefined.
    """
    known = resampled[resampled.isfinite()]
    if not math.isfinite(value) or 2 * len(known) < max(1, len(resampled)):
        return Interval(math.nan, math.nan)
    low, high = known.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=known.dtype)).tolist()
    bias = known.mean().item() - value
    low, high = low - 2 * bias - abs(bias), high - 2 * bias + abs(bias)
    return Interval(min(low, value), max(high, value))


def seed_draws(count: int, num_resamples: int = NUM_RESAMPLES, key: str = "") -> Tensor:
    """The weight of each of S seeds in each resample, float64 (S, R): S of them are drawn with replacement.

    The mean over so few draws varies too little, by S / (S - 1) in its variance, for which the weights make up.

    Args:
        count: S, at least 2.
        num_resamples: R.
        key: of the predictor, so that those of several are drawn independently of each other.
    """
    bits = np.random.Philox(key=derive_seed(count, "seeds", key)).random_raw(num_resamples * count)
    drawn = ((bits >> np.uint64(11)) * 2.0**-53 * count).astype(np.int64).reshape(num_resamples, count)
    shares = (drawn[:, :, None] == np.arange(count)).mean(1).T
    return torch.from_numpy(1 / count + (shares - 1 / count) * math.sqrt(count / (count - 1)))
