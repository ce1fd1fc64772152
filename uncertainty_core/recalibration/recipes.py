"""Calibrators of scores by name, as "class-wise-isotonic-iou". Names are checked where no torch is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from ..errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from .scores import Fit, ScoreCalibrator

# The module of each method's fit.
METHODS = {
    "temperature": "log_odds",
    "platt": "log_odds",
    "beta": "log_odds",
    "histogram": "segments",
    "isotonic": "segments",
    "linear": "segments",
}
# Calibrators of class probabilities.
CLASS_METHODS = ("temperature", "vector", "matrix", "dirichlet", "isotonic")
FILE = "calibrator.json"  # of a fitted one, unless another is asked for
N_MIN = 20  # samples from which on a class has a fit of its own

_CLASS_WISE, _IOU = "class-wise-", "-iou"


@dataclass(frozen=True)
class Recipe:
    """How a calibrator of detections is fitted.

    method: one of METHODS.
    class_wise: each class by itself.
    target: "hit" for hit or miss, "iou" for the IoU with the box found, 0 for a miss.
    n_min: classes with fewer detections share the fit of all.
    """

    method: str = "temperature"
    class_wise: bool = False
    target: Literal["hit", "iou"] = "hit"
    n_min: int = N_MIN

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"there is no calibrator of scores {self.method!r}; known are {', '.join(METHODS)}")
        if self.target not in ("hit", "iou"):
            raise UserError(f"the target must be hit or iou, got {self.target!r}")

    @classmethod
    def parse(cls, name: str) -> Recipe:
        """The recipe that is called so, as "class-wise-isotonic-iou"."""
        method = name.removeprefix(_CLASS_WISE).removesuffix(_IOU)
        return cls(method, name.startswith(_CLASS_WISE), "iou" if name.endswith(_IOU) else "hit")

    @property
    def name(self) -> str:
        """What `parse` reads."""
        return f"{_CLASS_WISE * self.class_wise}{self.method}{_IOU * (self.target == 'iou')}"

    @property
    def default_iou(self) -> float:
        """The IoU of a hit: 0.5, or any overlap where the target is the IoU itself, as Kuzucu et al. (2024) have it."""
        return 0.5 if self.target == "hit" else 0.0

    def fit(self, score: Tensor, target: Tensor, category: Tensor, class_names: Sequence[str]) -> ScoreCalibrator:
        """The calibrator of scores (N,), of targets (N,) in [0, 1] and of categories (N,)."""
        from .class_wise import fit_class_wise

        fit = fit_named(self.method)
        return (
            fit_class_wise(fit, score, target, category, class_names, self.n_min)
            if self.class_wise
            else fit(score, target)
        )


def class_methods(names: str) -> list[str]:
    """Those of CLASS_METHODS that are named, with commas between; raises UserError."""
    found = [name for name in names.split(",") if name]
    for name in found:
        if name not in CLASS_METHODS:
            raise UserError(
                f"there is no calibrator of class probabilities {name!r}; known are {', '.join(CLASS_METHODS)}"
            )
    return found


def fit_named(method: str) -> Fit:
    """The function that fits one of METHODS, by `score` and `target` (N,)."""
    return getattr(import_module(f".{METHODS[method]}", __package__), f"fit_{method}")
