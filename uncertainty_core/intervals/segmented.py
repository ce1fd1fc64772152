"""What is kept of each segmented image, and every metric of any number of draws from them.

Shapes: I images, R resamples, C classes, F fine bins, T levels of uncertainty, coarser than in
the measurement itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..functional.calibration import BinStatistics, fine_bins
from ..functional.selective import Ranking, aurc, detection_areas
from ..functional.sparsification import NUM_LEVELS, PixelLevels, ause, check_removed, sparsification
from ..streaming.exact_sums import from_limbs
from .arrays import Layout, check_arrays, check_count
from .bins import metrics_of_excess
from .cells import drawn_sum
from .resampling import NUM_RESAMPLES, Measure

MERGED = 4  # levels of uncertainty; each is then narrower than a 32nd of its value
_NUM_MERGED = (NUM_LEVELS - 2) // MERGED + 2  # the two ends stay alone

_LAYOUTS = {
    "count": Layout("numbers", "IF"),
    "excess": Layout("numbers", "IF"),
    "scores": Layout("numbers", "I"),
    "right": Layout("numbers", "ITC"),
    "wrong": Layout("numbers", "ITC"),
    "void": Layout("numbers", "IT"),
    "class_count": Layout("numbers", "IC"),
    "class_sums": Layout("numbers", "IC"),
}
_TOGETHER = (("count", "excess"), ("right", "wrong", "void"))  # are measured, or none of them is


def _coarse(counts: Tensor) -> Tensor:
    """Counts (T, ...) of pixels from those at each `uncertainty_level` (NUM_LEVELS, ...)."""
    level = (torch.arange(len(counts), device=counts.device) + MERGED - 1) // MERGED
    return counts.new_zeros(_NUM_MERGED, *counts.shape[1:]).index_add_(0, level, counts)


def calibration_row(bin_sums: Tensor, score_sums: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """What an image adds to the calibration.

    Args:
        bin_sums: of fine bins (5, F).
        score_sums: two limbs of the sum of each score, and how many of its values were infinite (3, S).
        names: of the scores (S).
    """
    bins = BinStatistics.from_sums(bin_sums.cpu())
    totals = from_limbs(score_sums[:2].cpu()).masked_fill(score_sums[2].cpu() > 0, torch.inf)
    return {
        "count": bins.count.numpy().astype(np.uint32),
        "excess": (bins.success - bins.confidence).numpy().astype(np.float32),
        "scores": dict(zip(names, totals.numpy(), strict=True)),
    }


def ranking_row(levels: PixelLevels) -> dict[str, np.ndarray]:
    """What an image adds to the ranking of pixels by uncertainty."""
    return {name: _coarse(counts).cpu().numpy().astype(np.uint32) for name, counts in levels._asdict().items()}


def class_row(sums: Mapping[str, Tensor]) -> dict[str, Any]:
    """What an image adds to the mean uncertainty of each class.

    Args:
        sums: by the name of the mean over classes, the count and two limbs of the sum in each class (3, C).
    """
    totals = {name: from_limbs(of_classes[1:].cpu()).numpy() for name, of_classes in sums.items()}
    return {"class_count": next(iter(sums.values()))[0].cpu().numpy(), "class_sums": totals}


@dataclass(frozen=True, eq=False)
class SegmentedImages:
    """Sums over the pixels of each image; those that were not measured are empty.

    ids: of the images (I).
    count: pixels in each bin of confidence (I, F); excess: sum of success minus confidence in each (I, F).
    scores: by the name of its mean over pixels the sum (I,).
    right, wrong, void: as `PixelLevels` has them, (I, T, C), (I, T, C), (I, T).
    class_count: pixels of each true class (I, C); class_sums: of their uncertainties (I, C), by the name of the mean.
    num_bins: of the confidence that people see.
    removed: shares of pixels where the sparsification curve is taken.
    """

    ids: list[str]
    count: np.ndarray | None = None
    excess: np.ndarray | None = None
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    right: np.ndarray | None = None
    wrong: np.ndarray | None = None
    void: np.ndarray | None = None
    class_count: np.ndarray | None = None
    class_sums: dict[str, np.ndarray] = field(default_factory=dict)
    num_bins: int = 15
    removed: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_count(self, "num_bins")
        check_arrays(self, _LAYOUTS, I=len(self.ids), F=fine_bins(self.num_bins), T=_NUM_MERGED)
        for names in _TOGETHER:
            if len({getattr(self, name) is None for name in names}) == 2:
                raise ValueError(f"{names[0]} goes with {' and '.join(names[1:])}")
        check_removed(self.removed)

    @classmethod
    def of_rows(cls, ids: list[str], rows: Sequence[Mapping[str, Any]], **settings: Any) -> "SegmentedImages":
        """From a row of each image, whose entries are those of `calibration_row`, `ranking_row` and `class_row`."""

        def stacked(values: list[Any]) -> Any:
            if isinstance(values[0], Mapping):
                return {name: stacked([value[name] for value in values]) for name in values[0]}
            return np.stack(values)

        columns = {name: stacked([row[name] for row in rows]) for name in rows[0]} if rows else {}
        return cls(ids, **columns, **settings)

    @property
    def measures(self) -> dict[Measure, int]:
        """What gives metrics of drawn images, and of how many resamples."""
        return {self.metrics: NUM_RESAMPLES}

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Every metric (R,) by name of the images drawn `weights` (I, R) times; those of classes left out."""

        def drawn(values: np.ndarray) -> Tensor:
            return torch.tensordot(weights.double(), torch.from_numpy(values).double(), dims=([0], [0]))

        values: dict[str, Tensor] = {}
        if self.count is not None:
            count = drawn(self.count)
            values |= metrics_of_excess(count, drawn(self.excess), self.num_bins)
            values |= {
                name: drawn_sum(torch.from_numpy(sums), weights) / count.sum(-1) for name, sums in self.scores.items()
            }
        if self.right is not None:
            values |= self._ranking(*(drawn(levels) for levels in (self.right, self.wrong, self.void)))
        if self.class_count is not None:
            count = drawn(self.class_count)
            values |= {name: (drawn(sums) / count).nanmean(-1) for name, sums in self.class_sums.items()}
        return values

    def _ranking(self, right: Tensor, wrong: Tensor, void: Tensor) -> dict[str, Tensor]:
        each = [PixelLevels(*levels) for levels in zip(right, wrong, void, strict=True)]
        curves = [sparsification(levels, self.removed) for levels in each]
        errors, outliers = (_stacked([getattr(levels, what) for levels in each]) for what in ("errors", "outliers"))
        return {
            "mIoU": torch.stack([100 * levels.class_iou.nanmean() for levels in each]),
            "aAcc": 100 * (1 - errors.events.sum(-1) / errors.count.sum(-1)),
            "ause": torch.stack([ause(*curve, self.removed) for curve in curves]),
            "aurc": aurc(errors),
            **detection_areas(errors, "error_"),
            **detection_areas(outliers),
        }


def _stacked(rankings: list[Ranking]) -> Ranking:
    return Ranking(*(torch.stack(columns) for columns in zip(*rankings, strict=True)))
