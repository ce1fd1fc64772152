"""Calibrators of scores with log-odds: sigmoid(a log s - b log(1 - s) + c).

Temperature, Platt and beta scaling leave one, two or three of these numbers free. They are fitted to targets in [0, 1],
hit or miss or the IoU itself, with the least mean cross-entropy.

Shapes: N scores, C classes, P numbers that are free.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from .base import CalibratorError, register
from .scores import ScoreCalibrator, check_finite, check_fit, check_line, check_scores
from .solvers import RIDGE, bounded_newton

# Log-odds are taken of scores this far from 0 and 1 at the least; they are 36 there.
EPS = torch.finfo(torch.float64).eps
# Of log-odds under a temperature: where scores know nothing, order and AP stay.
LEAST_SLOPE = 1e-3


def _logs(score: Tensor) -> tuple[Tensor, Tensor]:
    """log s and -log(1 - s), whose sum is the log-odds."""
    score = score.clamp(EPS, 1 - EPS)
    return score.log(), -(-score).log1p()


@dataclass(frozen=True)
class _LogOdds(ScoreCalibrator):
    @property
    def coefficients(self) -> tuple[float, float, float]:
        """a, b, c."""
        raise NotImplementedError

    def __call__(self, score: Tensor, category: Tensor | None = None) -> Tensor:
        """The calibrated scores; differentiable."""
        check_scores(score)
        return _from_log_odds(score.double(), *self.coefficients).to(score.dtype)

    @property
    def at_bound(self) -> bool:
        """See `ScoreCalibrator`."""
        return min(self.coefficients[:2]) <= LEAST_SLOPE

    @classmethod
    def stacked(cls, maps: Sequence["_LogOdds"]) -> Callable[[Tensor, Tensor], Tensor]:
        """One function of float64 scores and categories that does what `maps`, one of each class, do."""
        return partial(_from_table, torch.tensor([single.coefficients for single in maps], dtype=torch.float64))


def _from_table(table: Tensor, score: Tensor, category: Tensor) -> Tensor:
    """`_from_log_odds` with a row (a, b, c) of `table` (C, 3) for each category."""
    return _from_log_odds(score, *table.to(score.device)[category].unbind(-1))


def _from_log_odds(score: Tensor, a: float | Tensor, b: float | Tensor, c: float | Tensor) -> Tensor:
    of_success, of_failure = _logs(score)
    return (a * of_success + b * of_failure + c).sigmoid()


@register
@dataclass(frozen=True)
class Temperature(_LogOdds):
    """sigmoid(logit(s) / T)."""

    kind: ClassVar[str] = "temperature"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_finite(self.kind, temperature=self.temperature)
        if not self.temperature > 0:
            raise CalibratorError(f"temperature must be positive, got {self.temperature}")

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """a, b, c."""
        return 1 / self.temperature, 1 / self.temperature, 0.0


@register
@dataclass(frozen=True)
class Platt(_LogOdds):
    """sigmoid(slope · logit(s) + intercept), slope >= 0."""

    kind: ClassVar[str] = "platt"
    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        check_line(self.kind, self.slope, self.intercept)

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """a, b, c."""
        return self.slope, self.slope, self.intercept


@register
@dataclass(frozen=True)
class Beta(_LogOdds):
    """sigmoid(a log s - b log(1 - s) + c), a and b >= 0 (Kull et al. 2017)."""

    kind: ClassVar[str] = "beta"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __post_init__(self) -> None:
        check_finite(self.kind, a=self.a, b=self.b, c=self.c)
        if self.a < 0 or self.b < 0:
            raise CalibratorError(f"a and b of a calibrator of the kind 'beta' must be >= 0, got {self.a} and {self.b}")

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """a, b, c."""
        return self.a, self.b, self.c


def fit_temperature(score: Tensor, target: Tensor) -> Temperature:
    """The temperature with the least cross-entropy of `target` (N,) and the calibrated `score` (N,).

    Args:
        score: in [0, 1].
        target: bool, or in [0, 1] for a partial success such as an IoU.
    """
    score, target = check_fit(score, target)
    (slope,) = _logistic_fit(sum(_logs(score)).unsqueeze(1), target, [1.0], [LEAST_SLOPE])
    return Temperature(1 / slope)


def fit_platt(score: Tensor, target: Tensor) -> Platt:
    """Slope >= 0 and intercept with the least cross-entropy. Arguments as `fit_temperature`."""
    score, target = check_fit(score, target)
    features = torch.stack((sum(_logs(score)), torch.ones_like(score)), 1)
    return Platt(*_logistic_fit(features, target, [1.0, 0.0], [0.0, -torch.inf]))


def fit_beta(score: Tensor, target: Tensor) -> Beta:
    """a, b >= 0 and c with the least cross-entropy. Arguments as `fit_temperature`."""
    score, target = check_fit(score, target)
    features = torch.stack((*_logs(score), torch.ones_like(score)), 1)
    return Beta(*_logistic_fit(features, target, [1.0, 1.0, 0.0], [0.0, 0.0, -torch.inf]))


def _logistic_fit(features: Tensor, target: Tensor, identity: list[float], lower: list[float]) -> list[float]:
    """Weights (P,) of `features` (N, P) with the least mean cross-entropy of `target` (N,) and their sigmoid."""
    start = torch.tensor(identity, dtype=torch.float64)
    ridge = RIDGE * torch.eye(len(identity), dtype=torch.float64)

    def derivatives(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logit = features @ weights
        probability = logit.sigmoid()
        away = weights - start
        loss = (torch.nn.functional.softplus(logit) - target * logit).mean() + RIDGE / 2 * away.square().sum()
        gradient = features.T @ (probability - target) / len(target) + RIDGE * away
        curvature = probability * (1 - probability)
        return loss, gradient, (features.T * curvature) @ features / len(target) + ridge

    return bounded_newton(derivatives, start, torch.tensor(lower, dtype=torch.float64)).tolist()
