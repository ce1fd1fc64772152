"""Calibrators of scores by name: "temperature", "class-wise-isotonic-iou"."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..errors import UserError
from .class_wise import N_MIN, fit_class_wise
from .log_odds import fit_beta, fit_platt, fit_temperature
from .scores import Fit, ScoreCalibrator
from .segments import fit_histogram, fit_isotonic, fit_linear

SCORE_METHODS: dict[str, Fit] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "beta": fit_beta,
    "histogram": fit_histogram,
    "isotonic": fit_isotonic,
    "linear": fit_linear,
}

_CLASS_WISE, _IOU = "class-wise-", "-iou"


@dataclass(frozen=True)
class Recipe:
    """How a calibrator of detections is fitted.

    method: one of SCORE_METHODS.
    class_wise: each class by itself.
    target: "hit" for hit or miss, "iou" for the IoU with the box found, 0 for a miss.
    n_min: classes with fewer detections share the fit of all.
    """

    method: str = "temperature"
    class_wise: bool = False
    target: Literal["hit", "iou"] = "hit"
    n_min: int = N_MIN

    def __post_init__(self) -> None:
        if self.method not in SCORE_METHODS:
            raise UserError(f"there is no calibrator of scores {self.method!r}; known are {', '.join(SCORE_METHODS)}")
        if self.target not in ("hit", "iou"):
            raise UserError(f"the target must be hit or iou, got {self.target!r}")

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """The recipe that is called so, as "class-wise-isotonic-iou"."""
        method = name.removeprefix(_CLASS_WISE).removesuffix(_IOU)
        return cls(method, name.startswith(_CLASS_WISE), "iou" if name.endswith(_IOU) else "hit")

    @property
    def name(self) -> str:
        """What `parse` reads."""
        return f"{_CLASS_WISE * self.class_wise}{self.method}{_IOU * (self.target == 'iou')}"

    def fit(self, score: Tensor, target: Tensor, category: Tensor, class_names: Sequence[str]) -> ScoreCalibrator:
        """The calibrator of scores (N,), of targets (N,) in [0, 1] and of categories (N,)."""
        method = SCORE_METHODS[self.method]
        if self.class_wise:
            return fit_class_wise(method, score, target, category, class_names, self.n_min)
        return method(score, target)
