"""The rankings of selective prediction as `torchmetrics.Metric`; see accumulators.py.

Shapes: N samples, C classes, Q points of a curve.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import check_positive_int
from ..functional.selective import Ranking, aurc, detection_areas, ranking, risk_coverage
from ..functional.sparsification import (
    NUM_LEVELS,
    NUM_RANKS,
    PixelLevels,
    ause,
    certainty,
    check_removed,
    joint_levels,
    pixel_levels,
    rank_correlation,
    sparsification,
)
from .base import SumMetric

REMOVED = tuple(k / 20 for k in range(20))


class UncertaintyRanking(SumMetric):
    """How well an uncertainty in [0, 1] foretells an event (an error, an outlier), from a histogram.

    `compute()` gives a dict of float64 scalars: aurc (of value when events are errors), auroc, aupr, fpr95.

    Args:
        num_bins: levels of uncertainty that are told apart; samples in one bin count as tied.
    """

    def __init__(self, num_bins: int = 1000, **kwargs: Any) -> None:
        super().__init__({"bins": num_bins}, **kwargs)
        check_positive_int("num_bins", num_bins)
        self.num_bins = num_bins
        self.add_sum("counts", 2, num_bins)

    def update(self, uncertainty: Tensor, event: Tensor) -> None:
        """Add `uncertainty` (N,) in [0, 1] and `event` (N,) bool."""
        self.counts += torch.stack(ranking(uncertainty, event, self.num_bins))

    @property
    def ranking(self) -> Ranking:
        """The ranking so far, (num_bins,) each."""
        return Ranking(*self.counts)

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name."""
        return {"aurc": aurc(self.ranking), **detection_areas(self.ranking)}

    def plot(self):
        """Figure of the risk-coverage curve."""
        from ..plots import risk_coverage_plot

        return risk_coverage_plot({"model": risk_coverage(self.ranking)})


class PixelRanking(SumMetric):
    """All that an uncertainty's order of pixels decides: sparsification, detection of errors, and of void pixels.

    `levels` holds how many pixels there are at each `uncertainty_level`: 3074 · (2C + 1) integers.

    `compute()` gives a dict: curve and oracle (Q,), miou, ause; aurc, error_auroc, error_aupr, error_fpr95 of telling
    wrong pixels from right ones; auroc, aupr, fpr95 of telling void pixels, which no known class covers, from all
    others; accurate_if_certain, uncertain_if_inaccurate and pavpu, see `certainty`. float64; NaN where there is nothing
    to tell apart, with a warning only if there are no pixels at all.

    Args:
        num_classes: C.
        removed: the Q rising shares in [0, 1).
        ignore_index: label of void pixels.
    """

    def __init__(
        self,
        num_classes: int,
        removed: Sequence[float] = REMOVED,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__({"classes": num_classes, "ignore": ignore_index}, **kwargs)
        check_positive_int("num_classes", num_classes)
        check_removed(removed)
        self.num_classes, self.removed, self.ignore_index = num_classes, tuple(removed), ignore_index
        self.add_sum("right", NUM_LEVELS, num_classes)
        self.add_sum("wrong", NUM_LEVELS, num_classes)
        self.add_sum("void", NUM_LEVELS)

    def update(self, prediction: Tensor, label: Tensor, uncertainty: Tensor) -> None:
        """Add predicted and true classes and uncertainty in [0, 1], all of the same shape."""
        levels = pixel_levels(prediction, label, uncertainty, self.num_classes, self.ignore_index)
        self.right += levels.right
        self.wrong += levels.wrong
        self.void += levels.void

    @property
    def levels(self) -> PixelLevels:
        """The pixels so far."""
        return PixelLevels(self.right, self.wrong, self.void)

    def compute(self) -> dict[str, Tensor]:
        """The curves and areas by name."""
        levels = self.levels
        curve, oracle = sparsification(levels, self.removed)
        values = {
            "curve": curve,
            "oracle": oracle,
            "miou": levels.class_iou.nanmean(),
            "ause": ause(curve, oracle, self.removed),
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* needs both events and non-events", RuntimeWarning)
            values |= detection_areas(levels.errors, "error_") | detection_areas(levels.outliers)
        return values | {"aurc": aurc(levels.errors)} | certainty(levels)._asdict()

    def plot(self):
        """Figure of the sparsification curve beside the oracle's."""
        from ..plots import sparsification_plot

        values = self.compute()
        return sparsification_plot(self.removed, {"model": values["curve"]}, {"model": values["oracle"]})


class MapAgreement(SumMetric):
    """Whether two maps of uncertainty in [0, 1], a student's and its teacher's, order the pixels alike.

    `compute()` gives a dict of one float64 scalar, rank_correlation.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__({}, **kwargs)
        self.add_sum("counts", NUM_RANKS, NUM_RANKS)

    def update(self, uncertainty: Tensor, other: Tensor) -> None:
        """Add two maps (...) of the same pixels."""
        self.counts += joint_levels(uncertainty, other)

    def compute(self) -> dict[str, Tensor]:
        """The metric by name."""
        return {"rank_correlation": rank_correlation(self.counts)}
