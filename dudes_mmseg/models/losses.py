"""The loss between the student's and the teacher's uncertainty, as a config names it."""

from mmseg.registry import MODELS
from torch import Tensor, nn

from uncertainty_core import rmsle


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
