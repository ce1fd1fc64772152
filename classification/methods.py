"""What a teacher gives for an image, and what a student minimises: one small class per paper.

Shapes: N images, C classes, M draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import uncertainty_core as core
from uncertainty_core.checks import check_positive_int

if TYPE_CHECKING:  # configurations are read, and refused, where no torch is needed
    from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]


class Share(NamedTuple):
    """How much of a batch a process holds: of its rows, and of those with a label."""

    rows: Tensor | float = 1.0
    labels: Tensor | float = 1.0


WHOLE = Share()


@dataclass(frozen=True)
class Method(ABC):
    """How a network is trained.

    Class attributes:
        needs_teacher: whether `targets` is called at all.
        from_store: targets are drawn once and read from a store, rather than in every step.
        teacher_dropout: whether the teacher is asked for stochastic passes.
        student_dropout: whether the student's dropout is on while it is trained.
        loss_name: of what is minimised, for messages.
        initialize: what the student starts from, see `DropoutDistillation`.
    """

    needs_teacher: ClassVar[bool] = True
    from_store: ClassVar[bool] = False
    teacher_dropout: ClassVar[bool] = False
    student_dropout: ClassVar[bool] = True
    loss_name: ClassVar[str] = "cross-entropy"
    initialize: ClassVar[str] = "scratch"

    def inputs(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor:
        """What student and teacher see of `images` (N, ...), whose identities are `keys`."""
        return images

    def targets(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor | None:
        """What the eval-mode `teacher` gives for `images` (N, ...), whose identities are `keys`: (N, C)."""
        return None

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor, share: Share = WHOLE) -> Tensor:
        """What the student minimises, a scalar, given its `logits` (N, C), `targets` (N, C) and `labels` (N,).

        Each term is a mean over the N images, or over those with a label, times this process's `share` of them: the
        sum over processes is then what one process computes, however the labels are spread.
        """


@dataclass(frozen=True)
class Standard(Method):
    """Cross-entropy with the labels: baselines, teachers, members of an ensemble."""

    needs_teacher: ClassVar[bool] = False

    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor, share: Share = WHOLE) -> Tensor:
        """Cross-entropy."""
        return share.labels * core.cross_entropy(logits, labels)


@dataclass(frozen=True)
class Distillation(Method):
    """Learning from a teacher, on images that may move to where teachers disagree."""

    # root mean square of the move, in deviations of a pixel, see `diversified`; 0 for none
    ods: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.ods < math.inf:
            raise ValueError(f"ods must be 0 or positive and finite, got {self.ods}")
        if self.ods and self.from_store:
            raise ValueError("ods moves the images in every epoch, and stored targets stay: set from_store=false")

    def inputs(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor:
        """The images, or where they move to."""
        if self.ods == 0:
            return images
        from .sampling import diversified

        return diversified(teacher, images, keys, seed, self.ods)


@dataclass(frozen=True)
class DDN(Distillation):
    """Distilled Dropout Network (Gurau 2018): an identical network learns the mean of M stochastic logits.

    Where little but linear layers follows the dropout, that mean is nearly the logits of one plain pass: an empty
    lesson. `average="probs"` averages after the softmax, as Monte-Carlo dropout itself does, and so keeps what makes it
    less sure. The target is then the logarithm of the mean, which the student's logits have to meet up to a constant
    per image that no softmax sees; it is chosen so that the target sums to zero.
    """

    teacher_dropout: ClassVar[bool] = True
    loss_name: ClassVar[str] = "distance to the targets and cross-entropy"

    dd_weight: float = 1.0  # of the distance to the teacher's logits
    gt_weight: float = 1.0  # of the cross-entropy, the λ of eq. 7
    mc_samples: int = 100  # M
    average: Literal["logits", "probs"] = "logits"  # the paper's is logits
    precision: Precision = "float32"  # of the draws, see `mc_outputs`
    channels_last: bool = False  # likewise
    from_store: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_int("mc_samples", self.mc_samples)

    def targets(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor:
        """Mean of M stochastic logits, or centred logarithm of the mean of M stochastic probabilities.

        Of an `Ensemble`: the same of its members' logits, once each and without dropout.
        """
        import torch

        from .sampling import Ensemble, double_softmax, log_mean, mc_outputs

        if isinstance(teacher, Ensemble):
            mean = torch.no_grad()(partial(teacher.mean, images))
        else:
            options = {"seed": seed, "keys": keys, "precision": self.precision, "channels_last": self.channels_last}
            mean = partial(mc_outputs, teacher, images, self.mc_samples, **options)
        if self.average == "logits":
            return mean()
        logs = log_mean(mean(transform=double_softmax))
        return (logs - logs.mean(1, keepdim=True)).float()

    def loss(self, logits: Tensor, targets: Tensor, labels: Tensor, share: Share = WHOLE) -> Tensor:
        """Squared distance to the target logits, and cross-entropy where there is a label."""
        return core.ddn_loss(logits, targets, labels, self.dd_weight * share.rows, self.gt_weight * share.labels)


@dataclass(frozen=True)
class DropoutDistillation(Distillation):
    """Dropout distillation (Rota Bulò 2016, algorithm 2): one stochastic pass of the teacher a step, KL, no labels."""

    teacher_dropout: ClassVar[bool] = True
    student_dropout: ClassVar[bool] = False
    loss_name: ClassVar[str] = "KL to the teacher"

    images: Literal["train", "perturbed", "test"] = "perturbed"  # the unlabelled set
    # layers of the teacher's shape start from its weights; or all layers, from its first filters; or none
    initialize: Literal["teacher", "subset", "scratch"] = "teacher"

    def targets(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor:
        """Probabilities of one stochastic pass, drawn anew for each `seed`; of an `Ensemble` their mean."""
        import torch

        from .sampling import Ensemble

        with torch.no_grad():
            if isinstance(teacher, Ensemble):
                return teacher(images).softmax(1)
            with core.mc_dropout(teacher, seeds=[core.derive_seed(seed, key) for key in keys]):
                return teacher(images).softmax(1)

    def loss(self, logits: Tensor, targets: Tensor, labels: Tensor, share: Share = WHOLE) -> Tensor:
        """KL(teacher || student), whose gradient is unbiased for the one to the mean of all passes (theorem 1-ii)."""
        return share.rows * core.kl_distillation(logits, targets)


@dataclass(frozen=True)
class KD(Distillation):
    """Uncertainty transfer by knowledge distillation (Amara 2020): soft and hard cross-entropy, averaged."""

    loss_name: ClassVar[str] = "soft and hard cross-entropy"

    temperature: float = 10.0
    alpha: float = 0.5  # share of the soft term
    from_store: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}")

    def targets(self, teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int) -> Tensor:
        """Logits of one deterministic pass; of an `Ensemble` those of its mean probabilities."""
        import torch

        with torch.no_grad():
            return teacher(images)

    def loss(self, logits: Tensor, targets: Tensor, labels: Tensor, share: Share = WHOLE) -> Tensor:
        """Hinton's loss, where there is no label without its hard term."""
        soft = core.kd_loss(logits, targets, labels, self.temperature, alpha=1.0)
        return share.rows * self.alpha * soft + share.labels * (1 - self.alpha) * core.cross_entropy(logits, labels)


METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "ddn": DDN,
    "dropout_distillation": DropoutDistillation,
    "kd": KD,
}
