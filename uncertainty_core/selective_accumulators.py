"""The rankings of selective prediction as `torchmetrics.Metric`; see accumulators.py.

Shapes: N samples, C classes, Q points of a curve.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .accumulators import CHUNK, class_cells
from .checks import check_positive_int, check_same_shape, check_unit_interval
from .exact_sums import group_counts
from .selective import (
    NUM_LEVELS,
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
    sparsification_of_levels,
    uncertainty_level,
)
from .sum_metric import SumMetric

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
        removed: Sequence[float] = REMOVED,
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


class PixelRanking(SumMetric):
    """All that an uncertainty's order of pixels decides: sparsification, detection of errors, and of void pixels.

    Pixels are told apart by `uncertainty_level`, and an IoU needs no more of a level than how many pixels each class
    has in its intersection and in its union: the state is 3074 · (2C + 1) integers.

    `compute()` gives a dict: curve and oracle (Q,), miou, ause; error_aurc, error_auroc, error_aupr, error_fpr95 of
    telling wrong pixels from right ones; void_auroc, void_aupr, void_fpr95 of telling void pixels, which no known
    class covers, from all others. float64; NaN without a warning where there is nothing to tell apart.

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
        super().__init__({"ignore": ignore_index}, **kwargs)
        check_positive_int("num_classes", num_classes)
        check_removed(removed)
        self.num_classes, self.removed, self.ignore_index = num_classes, tuple(removed), ignore_index
        self.add_sum("right", NUM_LEVELS, num_classes)
        self.add_sum("wrong", NUM_LEVELS, num_classes)  # pixels that miss the class, and pixels that falsely have it
        self.add_sum("void", NUM_LEVELS)

    def update(self, prediction: Tensor, label: Tensor, uncertainty: Tensor) -> None:
        """Add predicted and true classes and uncertainty in [0, 1], all of the same shape."""
        check_unit_interval("uncertainty", uncertainty)
        check_same_shape("prediction", prediction, "label", label)
        check_same_shape("prediction", prediction, "uncertainty", uncertainty)
        cells = self.num_classes + 1  # the last one is for void
        shape = (NUM_LEVELS, cells, 2)
        true, said = (torch.zeros(shape, dtype=torch.int64, device=label.device) for _ in range(2))
        chunks = zip(
            class_cells("prediction", prediction, self.num_classes),
            class_cells("label", label, self.num_classes, self.ignore_index),
            uncertainty.detach().flatten().split(CHUNK),
            strict=True,
        )
        for predicted, labelled, uncertain in chunks:
            row = uncertainty_level(uncertain).mul_(cells)
            wrong, void = predicted != labelled, labelled == self.num_classes
            true += group_counts((row + labelled).mul_(2).add_(wrong), true.numel()).view(shape)
            said += group_counts((row + predicted).mul_(2).add_(void), said.numel()).view(shape)
        right, missed = true[:, :-1].unbind(2)
        self.right += right
        self.wrong += missed + said[:, :-1, 0] - right
        self.void += true[:, -1, 1]

    @property
    def class_iou(self) -> Tensor:
        """Intersection over union (C,) of each class, NaN where it never occurs: float64."""
        right = self.right.sum(0).double()
        return right / (right + self.wrong.sum(0))

    @property
    def errors(self) -> Ranking:
        """The ranking of all but the void pixels, with wrong ones as events."""
        wrong = self.wrong.sum(1) // 2  # each of them is in the unions of two classes
        return Ranking(self.right.sum(1) + wrong, wrong)

    @property
    def outliers(self) -> Ranking:
        """The ranking of all pixels, with void ones as events."""
        return Ranking(self.errors.count + self.void, self.void)

    def compute(self) -> dict[str, Tensor]:
        """The curves and areas by name."""
        union = self.right + self.wrong
        curve, oracle = sparsification_of_levels(self.errors.count, self.right, union, self.removed)
        values = {
            "curve": curve,
            "oracle": oracle,
            "miou": self.class_iou.nanmean(),
            "ause": ause(curve, oracle, self.removed),
        }
        detection = {"auroc": auroc, "aupr": aupr, "fpr95": fpr_at_tpr}
        for event, events in {"error": self.errors, "void": self.outliers}.items():
            defined = 0 < events.events.sum() < events.count.sum()
            for name, metric in detection.items():
                values[f"{event}_{name}"] = metric(events) if defined else torch.full_like(values["ause"], torch.nan)
        return values | {"error_aurc": aurc(self.errors)}

    def plot(self):
        """Figure of the sparsification curve beside the oracle's."""
        from .plots import sparsification_plot

        values = self.compute()
        return sparsification_plot(self.removed, {"model": values["curve"]}, {"model": values["oracle"]})
