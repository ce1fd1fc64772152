"""A calibrator of scores for each class; classes with few samples share one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import check_labels, check_same_shape
from .base import CalibratorError, is_traced, register
from .recipes import N_MIN
from .scores import Fit, ScoreCalibrator, check_fit, check_scores


@register
@dataclass(frozen=True)
class ClassWise(ScoreCalibrator):
    """Each score through the map of its category.

    maps: one of each class, all of one kind.
    class_names: of the classes, in the order of their numbers.
    counts: samples of each class in the fit.
    n_min: classes with fewer share the map of all.
    """

    kind: ClassVar[str] = "class_wise"
    maps: tuple[ScoreCalibrator, ...]
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    n_min: int

    def __post_init__(self) -> None:
        if not self.maps or not len(self.maps) == len(self.class_names) == len(self.counts):
            raise CalibratorError("a class-wise calibrator needs a map, a name and a count of each class")
        if len({type(single) for single in self.maps}) != 1 or not isinstance(self.maps[0], ScoreCalibrator):
            raise CalibratorError("the maps of a class-wise calibrator must be calibrators of scores of one kind")
        object.__setattr__(self, "_stacked", type(self.maps[0]).stacked(self.maps))

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.maps)

    @property
    def pooled(self) -> tuple[str, ...]:
        """Names of the classes that share the map of all."""
        return tuple(name for name, n in zip(self.class_names, self.counts, strict=True) if n < self.n_min)

    @property
    def at_bound(self) -> bool:
        """Whether one of the maps is."""
        return any(single.at_bound for single in self.maps)

    def __call__(self, score: Tensor, category: Tensor | None = None) -> Tensor:
        """The calibrated scores; `category` is needed."""
        if category is None:
            raise ValueError("a class-wise calibrator needs the category of each score")
        check_scores(score)
        if not is_traced():
            check_same_shape("score", score, "category", category)
            check_labels("category", category, self.num_classes)
        return self._stacked(score.double(), category.long()).to(score.dtype)


def fit_class_wise(
    fit: Fit,
    score: Tensor,
    target: Tensor,
    category: Tensor,
    class_names: Sequence[str],
    n_min: int = N_MIN,
    pooled: ScoreCalibrator | None = None,
) -> ClassWise:
    """`fit` for each class by itself.

    Args:
        fit: as `fit_named` returns it.
        score, target: (N,) in [0, 1].
        category: (N,) integers in [0, C).
        class_names: C names.
        n_min: a class with fewer samples gets `pooled`.
        pooled: by default the fit to the samples of all classes.
    """
    score, target = check_fit(score, target)
    check_same_shape("score", score, "category", category)
    check_labels("category", category, len(class_names))
    category = category.cpu()
    counts = torch.bincount(category, minlength=len(class_names)).tolist()
    if pooled is None and min(counts) < n_min:
        pooled = fit(score, target)
    in_order = category.argsort(stable=True)
    parts = zip(score[in_order].split(counts), target[in_order].split(counts), counts, strict=True)
    maps = (fit(*part) if n >= n_min and n else pooled for *part, n in parts)
    return ClassWise(tuple(maps), tuple(class_names), tuple(counts), n_min)
