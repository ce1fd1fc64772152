"""What a teacher gives for an image, and what a student minimises: one small class per paper.

Shapes: N images, C classes, M draws.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from uncertainty_core import cross_entropy, ddn_loss, derive_seed, kd_loss, kl_distillation, mc_dropout
from uncertainty_core.checks import check_positive_int

from .sampling import mc_outputs

# The label of an image without one, which is what the losses ignore.
UNLABELLED = -100


@dataclass(frozen=True)
class Method(ABC):
    """How a network is trained.

    Class attributes:
        needs_teacher: whether `targets` is called at all.
        from_store: targets are drawn once and read from a store, rather than in every step.
        student_dropout: whether the student's dropout is on while it is trained.
        initialize: what the student starts from, see `DropoutDistillation`.
    """

    needs_teacher: ClassVar[bool] = True
    from_store: ClassVar[bool] = False
    student_dropout: ClassVar[bool] = True
    initialize: ClassVar[str] = "scratch"

    def targets(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor | None:
        """What the eval-mode `teacher` gives for `images` (N, ...), whose identities are `keys`: (N, C)."""
        return None

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor) -> Tensor:
        """What the student minimises, a scalar, given its `logits` (N, C), `targets` (N, C) and `labels` (N,)."""


@dataclass(frozen=True)
class Standard(Method):
    """Cross-entropy with the labels: baselines, teachers, members of an ensemble."""

    needs_teacher: ClassVar[bool] = False

    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor) -> Tensor:
        """Cross-entropy."""
        return cross_entropy(logits, labels)


@dataclass(frozen=True)
class DDN(Method):
    """Distilled Dropout Network (Gurau 2018): an identical network learns the mean of M stochastic logits."""

    dd_weight: float = 1.0  # of the distance to the teacher's logits
    gt_weight: float = 1.0  # of the cross-entropy, the λ of eq. 7
    mc_samples: int = 100  # M
    from_store: bool = True

    def __post_init__(self) -> None:
        check_positive_int("mc_samples", self.mc_samples)

    def targets(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor:
        """Mean of M stochastic logits."""
        return mc_outputs(teacher, images, self.mc_samples, seed=seed, keys=keys)

    def loss(self, logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """Squared distance to the target logits, and cross-entropy where there is a label."""
        return ddn_loss(logits, targets, labels, self.dd_weight, self.gt_weight)


@dataclass(frozen=True)
class DropoutDistillation(Method):
    """Dropout distillation (Rota Bulò 2016, algorithm 2): one stochastic pass of the teacher a step, KL, no labels."""

    student_dropout: ClassVar[bool] = False

    images: Literal["train", "perturbed", "test"] = "perturbed"  # the unlabelled set
    # layers of the teacher's shape start from its weights; or all layers, from its first filters; or none
    initialize: Literal["teacher", "subset", "scratch"] = "teacher"

    def targets(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor:
        """Probabilities of one stochastic pass, drawn anew for each `seed`."""
        with torch.no_grad(), mc_dropout(teacher, seeds=[derive_seed(seed, key) for key in keys]):
            return teacher(images).softmax(1)

    def loss(self, logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """KL(teacher || student), whose gradient is unbiased for the one to the mean of all passes (theorem 1-ii)."""
        return kl_distillation(logits, targets)


@dataclass(frozen=True)
class KD(Method):
    """Uncertainty transfer by knowledge distillation (Amara 2020): soft and hard cross-entropy, averaged."""

    temperature: float = 10.0
    alpha: float = 0.5  # share of the soft term
    from_store: bool = False

    def targets(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor:
        """Logits of one deterministic pass."""
        with torch.no_grad():
            return teacher(images)

    def loss(self, logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """Hinton's loss."""
        return kd_loss(logits, targets, labels, self.temperature, self.alpha)


METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "ddn": DDN,
    "dropout_distillation": DropoutDistillation,
    "kd": KD,
}
