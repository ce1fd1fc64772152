"""Scores of single predictions: one number per sample, from probabilities; or from a Gaussian.

Shapes: N samples, C classes, `...` any further dimensions (pixels).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import (
    check_distribution,
    check_label_shape,
    check_labels,
    check_same_shape,
    check_unit_interval,
    warn_undefined,
)
from ..streaming.dtypes import at_least_float32


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    if reduction != "mean":
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    if values.numel() == 0:
        warn_undefined("the mean score", "there are no samples")
    return values.double().mean()


def check_predictions(probabilities: Tensor, labels: Tensor, ignore_index: int | None = None) -> None:
    """Raise ValueError unless `probabilities` (N, C, ...) are distributions and `labels` (N, ...) their classes."""
    check_distribution("probabilities", probabilities)
    check_label_shape(probabilities, labels)
    check_labels("labels", labels, probabilities.shape[1], ignore_index)


def top_label(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence and predicted class, both (N, ...), of `probabilities` (N, C, ...).

    The first of several equally probable classes is predicted.
    """
    check_distribution("probabilities", probabilities)
    return probabilities.max(1)


def brier(probabilities: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Brier score, sum over classes of (p - one_hot)², in [0, 2].

    Args:
        probabilities: (N, C, ...).
        labels: true classes (N, ...), integer.
        reduction: "mean" for a float64 scalar, "none" for (N, ...).
    """
    check_predictions(probabilities, labels)
    return _reduce(_brier(at_least_float32(probabilities), labels), reduction)


def nll_true(probabilities: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Negative log-likelihood of the true class, infinite where its probability is 0. Arguments as `brier`."""
    check_predictions(probabilities, labels)
    return _reduce(-of_class(at_least_float32(probabilities), labels).log(), reduction)


def nll_pred(probabilities: Tensor, reduction: str = "mean") -> Tensor:
    """-log of the confidence: the "NLL" row of the DDN paper (eq. 16), which knows no truth.

    Args:
        probabilities: (N, C, ...).
        reduction: "mean" for a float64 scalar, "none" for (N, ...).
    """
    check_distribution("probabilities", probabilities)
    return _reduce(-at_least_float32(probabilities.amax(1)).log(), reduction)


def entropy(probabilities: Tensor, reduction: str = "mean") -> Tensor:
    """Entropy of the predicted distribution in nats, in [0, log C]. Arguments as `nll_pred`."""
    check_distribution("probabilities", probabilities)
    return _reduce(_entropy(at_least_float32(probabilities)), reduction)


def mupe(teacher_confidence: Tensor, student_confidence: Tensor) -> Tensor:
    """Mean uncertainty prediction error (Amara 2020): mean of (teacher - student confidence)², float64 scalar.

    Args:
        teacher_confidence, student_confidence: probabilities of the class that each predicts, same shape.
    """
    check_unit_interval("teacher_confidence", teacher_confidence)
    check_unit_interval("student_confidence", student_confidence)
    check_same_shape("teacher_confidence", teacher_confidence, "student_confidence", student_confidence)
    return _reduce((teacher_confidence.double() - student_confidence.double()).square(), "mean")


def crps_gaussian(error: Tensor, std: Tensor) -> Tensor:
    """Energy score of Gaussians for a single number, the continuous ranked probability score, in its unit (...).

    E|X - y| - E|X - X'| / 2 for independent X and X' of the Gaussian, in closed form; least in the mean for the true
    deviation.

    Args:
        error: of the means, y less mean (...).
        std: deviations > 0 (...).
    """
    z = error / std
    density = math.sqrt(2 / math.pi) * (-z.square() / 2).exp()  # twice that of the standard Gaussian
    return std * (z * (z / math.sqrt(2)).erf() + density - 1 / math.sqrt(math.pi))


class SampleScores(NamedTuple):
    """Everything about each sample, (N, ...) each; success (the prediction is the label) is bool."""

    confidence: Tensor
    success: Tensor
    brier: Tensor
    nll_true: Tensor
    nll_pred: Tensor
    entropy: Tensor | None

    @property
    def accuracy(self) -> Tensor:
        """`success`, by the name of its mean."""
        return self.success


def sample_scores(probabilities: Tensor, labels: Tensor) -> SampleScores:
    """All scores of float32 or float64 `probabilities` (N, C, ...) and int64 `labels` (N, ...), unchecked.

    For callers that have checked their input once and go through it in pieces.
    """
    confidence = probabilities.amax(1)
    true = of_class(probabilities, labels)
    # argmax costs a hundred times what amax does, and is needed only where classes tie
    tied = (probabilities == confidence.unsqueeze(1)).sum() > confidence.numel()
    return SampleScores(
        confidence=confidence,
        success=probabilities.argmax(1) == labels if tied else true == confidence,
        brier=_brier(probabilities, labels),
        nll_true=-true.log(),
        nll_pred=-confidence.log(),
        entropy=_entropy(probabilities),
    )


def of_class(values: Tensor, labels: Tensor) -> Tensor:
    """The entry (n, ...) of `values` (n, C, ...) at the class `labels` (n, ...)."""
    return values.gather(1, labels.long().unsqueeze(1)).squeeze(1)


def _brier(probabilities: Tensor, labels: Tensor) -> Tensor:
    # not sum_c p_c² - 2 p_true + 1, which cancels when p_true is near 1
    others = probabilities.scatter(1, labels.long().unsqueeze(1), 0)
    return _sum_over_classes(others.square()) + (1 - of_class(probabilities, labels)).square()


def _entropy(probabilities: Tensor) -> Tensor:
    # clamped so that 0 log 0 is 0; twice as fast as torch.special.entr
    smallest = torch.finfo(probabilities.dtype).tiny
    return _sum_over_classes(probabilities.clamp(min=smallest).log_().neg_() * probabilities)


def _sum_over_classes(values: Tensor) -> Tensor:
    """Sum over dimension 1, class after class: torch's own order depends on the layout, and with it the last digit."""
    return sum(values.unbind(1))
