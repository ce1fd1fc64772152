"""What calibrators of scores have in common: one number in [0, 1] in, one out, never in another order.

Shapes: N scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..checks import check_same_shape, check_unit_interval
from .base import SCORES, Calibrator, CalibratorError, is_traced


@dataclass(frozen=True)
class ScoreCalibrator(Calibrator):
    """Calling it maps `score` (any shape), floating point in [0, 1], to the same shape and dtype.

    `category`, integers of the same shape, is needed by those that are class-wise. All compute in float64.
    """

    task = SCORES

    def __call__(self, score: Tensor, category: Tensor | None = None) -> Tensor:
        """The calibrated scores."""
        raise NotImplementedError

    @property
    def at_bound(self) -> bool:
        """Whether the data asked for a map that falls, or for none, and got the nearest that is allowed."""
        return False

    @classmethod
    def stacked(cls, maps: Sequence["ScoreCalibrator"]) -> Callable[[Tensor, Tensor], Tensor]:
        """One function of float64 scores and categories that does what `maps`, one of each class, do."""
        raise NotImplementedError


def check_scores(score: Tensor) -> None:
    """Raise ValueError unless the scores lie in [0, 1]; nothing while torch traces."""
    if not is_traced():
        check_unit_interval("score", score)


Fit = Callable[[Tensor, Tensor], ScoreCalibrator]


def check_fit(score: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both (N,) in float64 on the processor; raises ValueError where they are none, or outside of [0, 1]."""
    if score.dim() != 1:
        raise ValueError(f"score must have shape (N,), got {tuple(score.shape)}")
    check_same_shape("score", score, "target", target)
    if not len(score):
        raise ValueError("score is empty: there are no samples to fit a calibrator to")
    check_unit_interval("score", score)
    target = target.double()
    check_unit_interval("target", target)
    return score.detach().double().cpu(), target.detach().cpu()


def check_finite(kind: str, **numbers: float) -> None:
    """Raise CalibratorError unless all are finite numbers."""
    for name, number in numbers.items():
        if not isinstance(number, int | float) or not abs(number) < float("inf"):
            raise CalibratorError(f"a calibrator of the kind {kind!r} needs a finite {name}, got {number!r}")


def check_line(kind: str, slope: float, intercept: float) -> None:
    """Raise CalibratorError unless both are finite, and the line does not fall."""
    check_finite(kind, slope=slope, intercept=intercept)
    if slope < 0:
        raise CalibratorError(f"the slope of a calibrator of the kind {kind!r} must be >= 0, got {slope}")
