"""The losses between a student and its teacher, as configs name them.

Shapes: B images, C classes, U uncertainties, H x W pixels.
"""

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from uncertainty_core import kl_distillation, rmsle
from uncertainty_core.functional.losses import soft_bce

from .consensus import both_classes


@MODELS.register_module()
class RMSLELoss(nn.Module):
    """Root mean squared logarithmic error of each image (DUDES eq. 2), then the mean over images.

    Args:
        loss_weight: factor of the loss.
        loss_name: its name in the log; mmengine adds up what has "loss" in its name.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_rmsle") -> None:
        super().__init__()
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(self, uncertainty: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Of the student's `uncertainty` and its `target` (B, U, H, W), where `mask` (B, U, H, W) is True."""
        return self.loss_weight * rmsle(uncertainty, target, mask)


@MODELS.register_module()
class SoftBCELoss(nn.Module):
    """Binary cross-entropy with targets in [0, 1], the mean over pixels: least, but not zero, where both are equal.

    Args:
        loss_weight: factor of the loss.
        loss_name: its name in the log.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_bce") -> None:
        super().__init__()
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(self, uncertainty: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Of the student's `uncertainty` and its `target` (B, U, H, W), where `mask` (B, U, H, W) is True."""
        return self.loss_weight * soft_bce(uncertainty, target, mask)


@MODELS.register_module()
class MeanProbabilityLoss(nn.Module):
    """KL(mean probabilities of the teacher || student's softmax), the mean over pixels: zero where both agree.

    Args:
        loss_weight: factor of the loss.
        loss_name: its name in the log.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_kl") -> None:
        super().__init__()
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(self, seg_logits: Tensor, probabilities: Tensor, mask: Tensor | None = None) -> Tensor:
        """Of the student's `seg_logits` and the teacher's `probabilities` (B, C, H, W), where `mask` (B, H, W) is True.

        With one output (C = 1) it is the KL of the two probabilities that a sigmoid gives.
        """
        if seg_logits.shape[1] == 1:
            seg_logits = torch.cat((torch.zeros_like(seg_logits), seg_logits), dim=1)
        return self.loss_weight * kl_distillation(seg_logits, both_classes(probabilities), mask)
