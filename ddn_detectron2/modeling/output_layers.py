"""The box predictor: Fast R-CNN's, with dropout before it if asked for, and the distillation loss.

Shapes: R boxes over all images, K foreground classes.
"""

from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from torch import Tensor, nn

from uncertainty_core import ddn_loss, kl_distillation
from uncertainty_core.functional.losses import beta_nll, binary_kl_distillation, crps

from ..boxes import of_class
from ..config import dropout_positions
from ..teaching.target_matching import TEACHER_LOGITS
from ..teaching.unlabelled import of_labelled

_BOX_STD_LOSSES = {"beta_nll": beta_nll, "crps": crps}


class BoxStd(nn.Linear):
    """Logarithms of standard deviations from the features of boxes, which do not learn from it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        nn.init.normal_(self.weight, std=0.001)  # as Detectron2's deltas
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(R, out_features) of features (R, ...)."""
        return super().forward(x.detach().flatten(1))


class Predictions(NamedTuple):
    """What a predictor of deviations computes; the first two are those of `FastRCNNOutputLayers`.

    logits: (R, K + 1).
    deltas: of boxes (R, 4K), or (R, 4) for all classes alike.
    log_std: logarithm of the standard deviation of each delta, in the shape of the deltas.
    """

    logits: Tensor
    deltas: Tensor
    log_std: Tensor


class DDNOutputLayers(FastRCNNOutputLayers):
    """`FastRCNNOutputLayers` whose losses include the distance to the teacher's logits (DDN eq. 7) or probabilities."""

    @configurable
    def __init__(
        self,
        input_shape,
        *,
        loss: str,
        dd_weight: float,
        match: str,
        dropout_rate: float,
        box_std: bool,
        box_std_loss: str,
        **kwargs,
    ) -> None:
        """
        Args:
            input_shape, kwargs: as `FastRCNNOutputLayers`.
            loss: the distance, "logits" or "kl", see `MODEL.DDN.LOSS`.
            dd_weight: weight of the distance.
            match: what targets belong to, see `MODEL.DDN.TARGETS.MATCH`. With "gt_iou", a ground-truth box, proposals
                that are background are left out: they are matched with one, too, though they do not show it.
            dropout_rate: probability of dropping features; 0 for no dropout before the predictor.
            box_std: whether to predict the deviation of box deltas, too.
            box_std_loss: what these learn by, "beta_nll" or "crps".
        """
        super().__init__(input_shape, **kwargs)
        self.use_sigmoid_ce = getattr(self, "use_sigmoid_ce", False)  # younger than Detectron2 0.5
        self.loss, self.dd_weight = loss, dd_weight
        self.foreground_only = match == "gt_iou"
        self.dropout = nn.Dropout(dropout_rate) if dropout_rate else nn.Identity()
        self.score_of_std = _BOX_STD_LOSSES[box_std_loss]
        self.box_std = BoxStd(self.bbox_pred.in_features, self.bbox_pred.out_features) if box_std else None

    @classmethod
    def from_config(cls, cfg, input_shape):
        """The config's values."""
        ddn = cfg.MODEL.DDN
        values = super().from_config(cfg, input_shape)
        return values | {
            "loss_weight": values["loss_weight"] | {"loss_cls": ddn.GT_WEIGHT},
            "loss": ddn.LOSS,
            "dd_weight": ddn.DD_WEIGHT,
            "match": ddn.TARGETS.MATCH,
            "dropout_rate": ddn.DROPOUT.RATE if "predictor" in dropout_positions(cfg) else 0.0,
            "box_std": ddn.BOX_STD,
            "box_std_loss": ddn.BOX_STD_LOSS,
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Predictions:
        """Logits (R, K + 1) and box deltas (R, 4K) or (R, 4) of features (R, ...), and deviations if asked for."""
        x = self.dropout(x)
        predictions = super().forward(x)
        return predictions if self.box_std is None else Predictions(*predictions, self.box_std(x))

    def losses(self, predictions, proposals) -> dict[str, Tensor]:
        """Those of `FastRCNNOutputLayers` on labelled images; "loss_ddn"; "loss_box_std" for deviations."""
        losses = super().losses(*of_labelled(predictions[:2], proposals))
        losses["loss_ddn"] = self.dd_weight * self.distillation_loss(predictions[0], proposals)
        if self.box_std is not None:
            losses["loss_box_std"] = self.box_std_loss(predictions, proposals)
        return losses

    def predict_boxes(self, predictions, proposals):
        """As `FastRCNNOutputLayers`."""
        return super().predict_boxes(predictions[:2], proposals)

    def predict_probs(self, predictions, proposals):
        """As `FastRCNNOutputLayers`."""
        return super().predict_probs(predictions[:2], proposals)

    def predict_boxes_for_gt_classes(self, predictions, proposals):
        """As `FastRCNNOutputLayers`."""
        return super().predict_boxes_for_gt_classes(predictions[:2], proposals)

    def box_std_loss(self, predictions: Predictions, proposals) -> Tensor:
        """`MODEL.DDN.BOX_STD_LOSS` of the deltas from foreground proposals to their ground truth: a scalar."""
        if not proposals:
            return 0.0 * predictions.log_std.sum()
        labels = cat([p.gt_classes for p in proposals])
        foreground = ((labels >= 0) & (labels < self.num_classes)).nonzero().squeeze(1)
        boxes = cat([p.proposal_boxes.tensor for p in proposals])[foreground]
        # images without objects have no "gt_boxes", and no foreground either
        truth = cat([(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals])[foreground]
        deltas, log_std = (of_class(values[foreground], labels[foreground]) for values in predictions[1:])
        return self.score_of_std(self.box2box_transform.get_deltas(boxes, truth) - deltas.detach(), log_std)

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
        if self.use_sigmoid_ce:
            student, teacher = student[:, :-1], teacher[:, :-1]  # the last logit means nothing
            if self.loss == "kl":
                return share * binary_kl_distillation(student, teacher.sigmoid())
        elif self.loss == "kl":
            return share * kl_distillation(student, teacher.softmax(1))
        return share * ddn_loss(student, teacher)
