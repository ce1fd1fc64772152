"""The box predictor: Fast R-CNN's, with dropout before it if asked for, and the distillation loss.

Shapes: R boxes over all images, K foreground classes.
"""

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from torch import Tensor, nn

from uncertainty_core import ddn_loss, kl_distillation

from ..config import dropout_positions
from ..teaching.target_matching import TEACHER_LOGITS


class DDNOutputLayers(FastRCNNOutputLayers):
    """`FastRCNNOutputLayers` whose losses include the distance to the teacher's logits (DDN eq. 7) or probabilities."""

    @configurable
    def __init__(
        self,
        input_shape,
        *,
        loss: str,
        dd_weight: float,
        foreground_only: bool,
        dropout_rate: float,
        **kwargs,
    ) -> None:
        """
        Args:
            input_shape, kwargs: as `FastRCNNOutputLayers`.
            loss: the distance, "logits" or "kl", see `MODEL.DDN.LOSS`.
            dd_weight: weight of the distance.
            foreground_only: leave out proposals that are background; needed where a target belongs to a ground-truth
                box, since background proposals are matched with one, too, though they do not show it.
            dropout_rate: probability of dropping features; 0 for no dropout before the predictor.
        """
        super().__init__(input_shape, **kwargs)
        self.loss, self.dd_weight = loss, dd_weight
        self.foreground_only = foreground_only
        self.dropout = nn.Dropout(dropout_rate) if dropout_rate else nn.Identity()

    @classmethod
    def from_config(cls, cfg, input_shape):
        """The config's values."""
        ddn = cfg.MODEL.DDN
        values = super().from_config(cfg, input_shape)
        return values | {
            "loss_weight": values["loss_weight"] | {"loss_cls": ddn.GT_WEIGHT},
            "loss": ddn.LOSS,
            "dd_weight": ddn.DD_WEIGHT,
            "foreground_only": ddn.TARGETS.MATCH == "gt_iou",
            "dropout_rate": ddn.DROPOUT.RATE if "predictor" in dropout_positions(cfg) else 0.0,
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R, K + 1) and box deltas (R, 4K) or (R, 4) of features (R, ...)."""
        return super().forward(self.dropout(x))

    def losses(self, predictions, proposals) -> dict[str, Tensor]:
        """Those of `FastRCNNOutputLayers`, and "loss_ddn"."""
        losses = super().losses(predictions, proposals)
        losses["loss_ddn"] = self.dd_weight * self.distillation_loss(predictions[0], proposals)
        return losses

    def distillation_loss(self, logits: Tensor, proposals) -> Tensor:
        """Distance between `logits` (R, K + 1) and the targets of those boxes that have one: a scalar.

        `foreground_only`: over R, as Detectron2's other losses are: a box weighs the same in each image, however few
        are taught. Otherwise over the taught, who stand for all R.
        """
        targets = [
            p.get(TEACHER_LOGITS) if p.has(TEACHER_LOGITS) else logits.new_full((len(p), logits.shape[1]), torch.nan)
            for p in proposals
        ]
        if not targets:
            return 0.0 * logits.sum()
        targets = cat(targets)
        taught = ~targets.isnan().any(1)
        share = 1.0
        if self.foreground_only:
            labels = cat([p.gt_classes for p in proposals])
            taught &= (labels >= 0) & (labels < self.num_classes)
            share = taught.sum() / max(len(taught), 1)
        student, teacher = logits[taught], targets[taught].to(logits.dtype)
        if self.loss == "kl":
            return share * kl_distillation(student, teacher.softmax(1))
        return share * ddn_loss(student, teacher)
