"""Distillation losses. All are differentiable where student and teacher agree, and 0 on an empty batch.

Shapes: N samples, C classes, B images, `...` any further dimensions (pixels).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import (
    check_distribution,
    check_label_shape,
    check_labels,
    check_mask,
    check_same_shape,
    check_unit_interval,
)
from ..streaming.dtypes import at_least_float32
from .scores import crps_gaussian

IGNORE_INDEX = -100


def _mean(values: Tensor, count: Tensor | int) -> Tensor:
    """Sum over `count`; an empty sum is a 0 that still has a gradient."""
    return values.sum() / torch.as_tensor(count, device=values.device).clamp(min=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the samples that have a label: of `logits` (N, C) and `labels` (N,), -100 for none."""
    check_label_shape(logits, labels, "logits")
    check_labels("labels", labels, logits.shape[1], IGNORE_INDEX)
    labels = labels.long()
    losses = F.cross_entropy(at_least_float32(logits), labels, ignore_index=IGNORE_INDEX, reduction="none")
    return _mean(losses, (labels != IGNORE_INDEX).sum())


def squared_distance(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean over samples of ||f(x_i) - z_i||², of `student_logits` f and `teacher_logits` z (N, C): DDN eq. 8."""
    check_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    distance = (at_least_float32(student_logits) - at_least_float32(teacher_logits.detach())).square().sum(1)
    return _mean(distance, len(distance))


def ddn_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    dd_weight: float = 1.0,
    gt_weight: float = 1.0,
) -> Tensor:
    """Distilled Dropout Network, eq. 7: dd_weight · mean_i ||f(x_i) - z_i||² + gt_weight · cross-entropy.

    Both weights exist because the paper's λ stands before the second term in eq. 7 and before the first one in its
    detection experiments.

    Args:
        student_logits: f (N, C).
        teacher_logits: z, the mean of the teacher's stochastic logits (N, C).
        labels: (N,) integer; -100 for a sample without a label, which skips the second term. None leaves that term to
            a framework that computes its own.
        dd_weight: weight of the distillation term.
        gt_weight: weight of the cross-entropy.
    """
    loss = dd_weight * squared_distance(student_logits, teacher_logits)
    return loss if labels is None else loss + gt_weight * cross_entropy(student_logits, labels)


def kl_distillation(student_logits: Tensor, teacher_probs: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over samples (and pixels) of KL(teacher || student) >= 0, zero where they agree.

    Args:
        student_logits: (N, C, ...).
        teacher_probs: probabilities (N, C, ...); zeros are allowed.
        mask: bool (N, ...), True for those that count; None for all. Without any the loss is 0.
    """
    check_same_shape("student_logits", student_logits, "teacher_probs", teacher_probs)
    if mask is not None:
        check_mask(mask)
        check_same_shape("student_logits of a class", student_logits[:, 0], "mask", mask)
        # selected before anything is computed: whatever stands elsewhere reaches neither the loss nor the gradient
        student_logits, teacher_probs = (values.movedim(1, -1)[mask] for values in (student_logits, teacher_probs))
    check_distribution("teacher_probs", teacher_probs)
    return _kl(at_least_float32(student_logits).log_softmax(1), at_least_float32(teacher_probs.detach()))


def binary_kl_distillation(student_logits: Tensor, teacher_probs: Tensor) -> Tensor:
    """Mean over samples of the sum over classes of KL(teacher || student) of yes and no; >= 0, zero where they agree.

    Args:
        student_logits: (N, C), one sigmoid per class.
        teacher_probs: probabilities (N, C), which need not sum to 1.
    """
    check_same_shape("student_logits", student_logits, "teacher_probs", teacher_probs)
    check_unit_interval("teacher_probs", teacher_probs)
    logits, probs = at_least_float32(student_logits), at_least_float32(teacher_probs.detach())
    surprise = F.binary_cross_entropy_with_logits(logits, probs, reduction="none")
    divergence = (surprise + torch.xlogy(probs, probs) + torch.xlogy(1 - probs, 1 - probs)).sum(1)
    return _mean(divergence, divergence.numel())


def _kl(log_student: Tensor, teacher: Tensor) -> Tensor:
    divergence = F.kl_div(log_student, teacher, reduction="none").sum(1)
    return _mean(divergence, divergence.numel())


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 1.0, alpha: float = 0.5
) -> Tensor:
    """Hinton's distillation: alpha · T² · KL(teacher at T || student at T) + (1 - alpha) · cross-entropy.

    T² keeps the gradient of the soft term of the same order whatever T. The KL differs from the soft cross-entropy by
    the teacher's entropy, which is a constant.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        labels: (N,) integer; -100 for a sample without a label, which skips the hard term.
        temperature: T > 0.
        alpha: share of the soft term, in [0, 1].
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    check_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    log_student = (at_least_float32(student_logits) / temperature).log_softmax(1)
    soft = _kl(log_student, (at_least_float32(teacher_logits.detach()) / temperature).softmax(1))
    return alpha * temperature**2 * soft + (1 - alpha) * cross_entropy(student_logits, labels)


def soft_bce(student_uncertainty: Tensor, teacher_uncertainty: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of -z log q - (1 - z) log(1 - q), least at q = z: binary cross-entropy with soft targets.

    Args:
        student_uncertainty: q in [0, 1] (...).
        teacher_uncertainty: z in [0, 1] (...).
        mask: bool (...), True for pixels that count; None for all.
    """
    check_same_shape("student_uncertainty", student_uncertainty, "teacher_uncertainty", teacher_uncertainty)
    if mask is not None:
        check_mask(mask)
        check_same_shape("student_uncertainty", student_uncertainty, "mask", mask)
        student_uncertainty, teacher_uncertainty = student_uncertainty[mask], teacher_uncertainty[mask]
    student, teacher = at_least_float32(student_uncertainty), at_least_float32(teacher_uncertainty.detach())
    smallest = torch.finfo(student.dtype).eps  # of no infinite loss; and torch's own does without mixed precision
    likelihood = teacher * student.clamp(min=smallest).log() + (1 - teacher) * (1 - student).clamp(min=smallest).log()
    return _mean(-likelihood, likelihood.numel())


def rmsle(student_uncertainty: Tensor, teacher_uncertainty: Tensor, mask: Tensor | None = None) -> Tensor:
    """Root mean squared logarithmic error (DUDES eq. 2): per image, then the mean over images.

    Args:
        student_uncertainty: q >= 0 (B, ...).
        teacher_uncertainty: z >= 0 (B, ...).
        mask: bool (B, ...), True for pixels that count; None for all. An image without any contributes 0.
    """
    check_same_shape("student_uncertainty", student_uncertainty, "teacher_uncertainty", teacher_uncertainty)
    student, teacher = at_least_float32(student_uncertainty), at_least_float32(teacher_uncertainty.detach())
    if mask is None:
        mask = torch.ones_like(student, dtype=torch.bool)
    check_same_shape("student_uncertainty", student, "mask", mask)
    check_mask(mask)
    # masked before the logarithm: whatever stands there, NaN too, reaches neither the loss nor the gradient
    difference = torch.log1p(teacher.where(mask, 0)) - torch.log1p(student.where(mask, 0))
    squares, counts = (values.unsqueeze(-1).flatten(1).sum(1) for values in (difference.square(), mask))
    mean_squares = squares / counts.clamp(min=1)
    # the square root has no derivative at 0; there the loss is at its minimum and the gradient we want is 0
    differs = mean_squares != 0  # true of NaN, which must not pass for a perfect image
    roots = mean_squares.where(differs, 1).sqrt().where(differs, 0)
    return _mean(roots, len(roots))


def beta_nll(error: Tensor, log_std: Tensor, beta: float = 0.5) -> Tensor:
    """Mean over samples of the Gaussian negative log-likelihood of errors, times their variance to the power of beta.

    Seitzer et al. 2022: with beta = 0 samples that are already known well would drown the others, whose gradient falls
    with the variance. The factor is a constant for the gradient. The constant log(2 pi) / 2 is left out.

    Args:
        error: (N, ...), of which nothing is learnt.
        log_std: logarithm of the predicted standard deviation (N, ...).
        beta: 0 for the likelihood itself, 1 for errors that weigh alike.
    """
    check_same_shape("error", error, "log_std", log_std)
    log_std, error = at_least_float32(log_std), at_least_float32(error.detach())
    losses = (error * (-log_std).exp()).square() / 2 + log_std
    return _mean(losses * (2 * beta * log_std.detach()).exp(), losses.numel())


def crps(error: Tensor, log_std: Tensor) -> Tensor:
    """Mean over samples of the energy score of Gaussians, `crps_gaussian`: outliers weigh linearly. As `beta_nll`."""
    check_same_shape("error", error, "log_std", log_std)
    losses = crps_gaussian(at_least_float32(error.detach()), at_least_float32(log_std).exp())
    return _mean(losses, losses.numel())
