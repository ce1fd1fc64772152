"""Sparsification: does a segmentor's uncertainty know which pixels to drop? (DUDES fig. 4)

An IoU needs no more of a level of uncertainty than how many pixels each class has in its intersection and in its union.
Counts of levels add up over images, and all of a sparsification curve, of detecting wrong pixels and of detecting void
ones follows from them.

Shapes: C classes, T levels, Q points of a curve, `...` any dimensions of pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_positive_int, check_same_shape, check_unit_interval, warn_undefined
from ..streaming.chunks import chunk_length, class_cells
from ..streaming.exact_sums import group_counts
from .selective import Ranking

# Levels of uncertainty as fine as bfloat16, from 2**-24 on: 128 for each power of two, one for 1, one for all below.
NUM_LEVELS = 24 * 128 + 2
_BITS_BELOW = (127 - 24) * 128 - 1

_RANKED_TOGETHER = 8  # levels, where maps are compared with each other
NUM_RANKS = -(-NUM_LEVELS // _RANKED_TOGETHER)


class PixelLevels(NamedTuple):
    """Pixels at each of T levels of uncertainty, certain ones first: int64.

    Attributes:
        right: of each class, found (T, C).
        wrong: that miss the class, and that falsely have it (T, C).
        void: of no class (T,).
    """

    right: Tensor
    wrong: Tensor
    void: Tensor

    @property
    def errors(self) -> Ranking:
        """The ranking of all but the void pixels, with wrong ones as events."""
        wrong = self.wrong.sum(1) // 2  # each of them is in the unions of two classes
        return Ranking(self.right.sum(1) + wrong, wrong)

    @property
    def outliers(self) -> Ranking:
        """The ranking of all pixels, with void ones as events."""
        return Ranking(self.errors.count + self.void, self.void)

    @property
    def class_iou(self) -> Tensor:
        """Intersection over union (C,) of each class, NaN where it never occurs: float64."""
        right = self.right.sum(0).double()
        return right / (right + self.wrong.sum(0))


def uncertainty_level(uncertainty: Tensor) -> Tensor:
    """The level (...) int32 in [0, NUM_LEVELS) of each `uncertainty` (...) in [0, 1]; more certain is lower or equal.

    Levels are narrower than a hundredth of their values, down to 2**-24. Networks are certain of most pixels: of a
    thousand equal bins the first would hold most of them.
    """
    # the bits of a float, read as an integer, rise with it
    return (uncertainty.float().view(torch.int32) >> 16).sub_(_BITS_BELOW).clamp_(min=0)


def pixel_levels(
    prediction: Tensor, label: Tensor, uncertainty: Tensor, num_classes: int, ignore_index: int | None = None
) -> PixelLevels:
    """Count pixels by `uncertainty_level`; the counts of several images may be added.

    Args:
        prediction: predicted classes (...), integer.
        label: true classes (...), integer.
        uncertainty: (...) in [0, 1].
        num_classes: C.
        ignore_index: label of void pixels.
    """
    check_positive_int("num_classes", num_classes)
    check_unit_interval("uncertainty", uncertainty)
    check_same_shape("prediction", prediction, "label", label)
    check_same_shape("prediction", prediction, "uncertainty", uncertainty)
    cells = num_classes + 1  # the last one is for void
    shape = (NUM_LEVELS, cells, 2)
    of_label, of_prediction = (torch.zeros(shape, dtype=torch.int64, device=label.device) for _ in range(2))
    chunks = zip(
        class_cells("prediction", prediction, num_classes),
        class_cells("label", label, num_classes, ignore_index),
        uncertainty.detach().flatten().split(chunk_length(uncertainty)),
        strict=True,
    )
    for predicted, labelled, uncertain in chunks:
        row = uncertainty_level(uncertain).mul_(cells)
        wrong, void = predicted != labelled, labelled == num_classes
        of_label += group_counts((row + labelled).mul_(2).add_(wrong), of_label.numel()).view(shape)
        of_prediction += group_counts((row + predicted).mul_(2).add_(void), of_prediction.numel()).view(shape)
    right, missed = of_label[:, :-1].unbind(2)
    return PixelLevels(right.clone(), missed + of_prediction[:, :-1, 0] - right, of_label[:, -1, 1].clone())


def level_values(device: torch.device | str = "cpu") -> Tensor:
    """The lowest uncertainty (NUM_LEVELS,) float64 of each level."""
    bits = (torch.arange(NUM_LEVELS, dtype=torch.int32, device=device) + _BITS_BELOW) << 16
    values = bits.view(torch.float32).double()
    values[0] = 0
    return values


class Certainty(NamedTuple):
    """How right and wrong pixels fall on both sides of a threshold of uncertainty: float64 scalars.

    Attributes:
        accurate_if_certain: share of right ones among the certain pixels.
        uncertain_if_inaccurate: share of uncertain ones among the wrong pixels.
        pavpu: share of pixels that are right and certain, or wrong and uncertain.
    """

    accurate_if_certain: Tensor
    uncertain_if_inaccurate: Tensor
    pavpu: Tensor


def certainty(levels: PixelLevels) -> Certainty:
    """Patch accuracy versus patch uncertainty (Mukhoti and Gal 2018), with patches of one pixel.

    The threshold is the mean uncertainty of the pixels, each of which counts with the lowest value of its level; those
    at it or below are certain. NaN where there is nothing to take a share of.
    """
    count, wrong = (values.double() for values in levels.errors)
    values = level_values(count.device)
    certain = values <= (count * values).sum() / count.sum()
    right = count - wrong
    return Certainty(
        right[certain].sum() / count[certain].sum(),
        wrong[~certain].sum() / wrong.sum(),
        (right[certain].sum() + wrong[~certain].sum()) / count.sum(),
    )


def joint_levels(uncertainty: Tensor, other: Tensor) -> Tensor:
    """How many pixels are at each pair of ranks, of an eighth of the levels: int64 (T, T); counts may be added.

    Args:
        uncertainty, other: two maps (...) in [0, 1].
    """
    check_unit_interval("uncertainty", uncertainty)
    check_unit_interval("other", other)
    check_same_shape("uncertainty", uncertainty, "other", other)
    row, column = (
        uncertainty_level(values.detach().flatten()).long() // _RANKED_TOGETHER for values in (uncertainty, other)
    )
    return group_counts(row * NUM_RANKS + column, NUM_RANKS**2).view(NUM_RANKS, NUM_RANKS)


def rank_correlation(joint: Tensor) -> Tensor:
    """Spearman's rank correlation, in [-1, 1], of pixels counted by `joint_levels`; those of a level are tied: float64.

    NaN where one of the maps has one level alone.
    """
    counts = joint.double()
    total = counts.sum()
    ranks = []
    for margin in (counts.sum(1), counts.sum(0)):
        rank = margin.cumsum(0) - margin / 2
        centred = rank - total / 2  # the mean rank
        ranks.append(centred / (margin * centred.square()).sum().sqrt())
    return ranks[0] @ counts @ ranks[1]


def sparsification(levels: PixelLevels, removed: Sequence[float]) -> tuple[Tensor, Tensor]:
    """mIoU of what is left when the most uncertain share of all pixels is removed; void ones never counted.

    A level that is removed in part leaves what a random choice from it is expected to.

    Args:
        levels: the pixels.
        removed: the Q rising shares, each in [0, 1).

    Returns:
        The curve, and the oracle's that removes the wrong pixels first: float64 (Q,) each.
    """
    check_removed(removed)
    shares = torch.as_tensor(removed, dtype=torch.float64, device=levels.right.device)
    if not levels.errors.count.any():
        warn_undefined("sparsification", "there are no pixels")
    right, wrong = levels.right.sum(0), levels.wrong.sum(0)
    none = torch.zeros_like(right)
    oracle = PixelLevels(torch.stack((right, none)), torch.stack((none, wrong)), levels.void.new_zeros(2))
    return _kept_iou(levels, shares), _kept_iou(oracle, shares)


def _kept_iou(levels: PixelLevels, removed: Tensor) -> Tensor:
    count = levels.errors.count.double()
    before = count.cumsum(0) - count
    kept = (1 - removed)[:, None] * count.sum()
    # 0.3 of 20 pixels is 6, not 6 and the dust of a seventh, which would bring its class along
    whole = kept.round()
    kept = torch.where((kept - whole).abs() <= 1e-12 * count.sum(), whole, kept)
    share = ((kept - before) / count.clamp(min=1)).clamp(0, 1)  # (Q, T) of each level that is left
    right = share @ levels.right.double()
    union = right + share @ levels.wrong.double()
    occurs = union > 0
    return torch.where(occurs, right / union, 0).sum(-1) / occurs.sum(-1)


def check_removed(removed: Sequence[float]) -> None:
    """Raise ValueError unless `removed` are rising shares in [0, 1)."""
    shares = torch.as_tensor(removed, dtype=torch.float64)
    if not ((shares >= 0) & (shares < 1)).all():
        raise ValueError(f"removed must hold shares in [0, 1), got {shares.tolist()}")
    if not (shares[1:] > shares[:-1]).all():
        raise ValueError(f"removed must rise, got {shares.tolist()}")


def ause(curve: Tensor, oracle: Tensor, removed: Sequence[float]) -> Tensor:
    """Area between the oracle's sparsification curve and a model's, by trapezoids: float64, 0 is perfect.

    Args:
        curve, oracle: mIoU (Q,) at each share, as `sparsification` returns them.
        removed: the Q rising shares.
    """
    shares = torch.as_tensor(removed, dtype=torch.float64, device=curve.device)
    return torch.trapezoid(oracle - curve, shares)
