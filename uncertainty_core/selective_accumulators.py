"""The rankings of selective prediction as `torchmetrics.Metric`; see accumulators.py.

Shapes: N samples, C classes, Q points of a curve.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import check_positive_int
from .selective import (
    Ranking,
    aupr,
    aurc,
    auroc,
    ause,
    check_removed,
    confusion_by_uncertainty,
    fpr_at_tpr,
    mean_iou,
    ranking,
    risk_coverage,
    sparsification,
)
from .sum_metric import SumMetric


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
        metrics = {"aurc": aurc, "auroc": auroc, "aupr": aupr, "fpr95": fpr_at_tpr}
        return {name: metric(self.ranking) for name, metric in metrics.items()}

    def plot(self):
        """Figure of the risk-coverage curve."""
        from .plots import risk_coverage_plot

        return risk_coverage_plot({"model": risk_coverage(self.ranking)})


class Sparsification(SumMetric):
    """mIoU against the removed share of most uncertain pixels, from one confusion matrix per bin of uncertainty.

    `compute()` gives a dict: curve and oracle (Q,), ause, miou, float64.

    Args:
        num_classes: C; the state is num_bins · C² integers.
        num_bins: levels of uncertainty that are told apart.
        removed: the Q rising shares in [0, 1).
        ignore_index: label of pixels to leave out.
    """

    def __init__(
        self,
        num_classes: int,
        num_bins: int = 1000,
        removed: Sequence[float] = tuple(k / 20 for k in range(20)),
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__({"bins": num_bins, "ignore": ignore_index}, **kwargs)
        check_positive_int("num_classes", num_classes)
        check_positive_int("num_bins", num_bins)
        check_removed(removed)
        self.num_classes, self.num_bins, self.removed = num_classes, num_bins, tuple(removed)
        self.ignore_index = ignore_index
        self.add_sum("confusions", num_bins, num_classes, num_classes)

    def update(self, prediction: Tensor, label: Tensor, uncertainty: Tensor) -> None:
        """Add predicted and true classes and uncertainty in [0, 1], all of the same shape."""
        self.confusions += confusion_by_uncertainty(
            prediction, label, uncertainty, self.num_classes, self.num_bins, self.ignore_index
        )

    def compute(self) -> dict[str, Tensor]:
        """The curves and their areas by name."""
        curve, oracle = sparsification(self.confusions, self.removed)
        area = ause(curve, oracle, self.removed)
        return {"curve": curve, "oracle": oracle, "ause": area, "miou": mean_iou(self.confusions.sum(0))}

    def plot(self):
        """Figure of the sparsification curve beside the oracle's."""
        from .plots import sparsification_plot

        values = self.compute()
        return sparsification_plot(self.removed, {"model": values["curve"]}, {"model": values["oracle"]})
