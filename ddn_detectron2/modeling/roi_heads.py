"""ROI heads that are taught by a teacher, and can be sampled.

One mixin does it for all: it only attaches the teacher's logits to ground truth and proposals, whose way through
sampling and losses is Detectron2's own. With the test-time options off, inference is Detectron2's, too.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, CascadeROIHeads, Res5ROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import ImageList, Instances, pairwise_iou
from torch import nn

from uncertainty_core.recalibration import ConformalBoxes, ProbabilityCalibrator, ScoreCalibrator
from uncertainty_core.recalibration.base import SCORES

from ..boxes import of_class
from ..config import ConfigError, dropout_positions, proposal_share, read_box_calibrator, read_calibrator
from ..teaching.sampling import BoxBranch, SpatialMean, mean_prediction, predict_boxes
from ..teaching.target_matching import TEACHER_LOGITS
from ..teaching.teacher import Features, Teacher
from ..teaching.unlabelled import mark_unlabelled
from .dropout import dropout_in_blocks
from .output_layers import DDNOutputLayers


@dataclass(frozen=True)
class TargetSettings:
    """How targets are drawn, see `MODEL.DDN.TARGETS`."""

    match: str
    iou_threshold: float
    score_threshold: float
    average: str
    share: float


@dataclass(frozen=True)
class InferenceSettings:
    """What is different at test time, see `MODEL.DDN.TEST`."""

    mc_samples: int
    ensemble: bool
    seed: int
    class_probs: bool
    calibrator: ScoreCalibrator | ProbabilityCalibrator | None
    box_calibrator: ConformalBoxes | None


class DDNHeadsMixin:
    """What the three DDN heads share; comes before a `ROIHeads` in the bases.

    `teacher` is None (plain training, or targets that come with the data) or a `Teacher`.
    """

    @configurable
    def __init__(self, *, targets: TargetSettings, test: InferenceSettings, **kwargs) -> None:
        """
        Args:
            targets, test: settings.
            kwargs: as the `ROIHeads`.
        """
        super().__init__(**kwargs)
        if self.last_predictor.use_sigmoid_ce and test.calibrator is not None and test.calibrator.task != SCORES:
            raise ConfigError(
                "the calibrator maps distributions over classes, and the detector gives each class a probability of "
                "its own: fit one for scores"
            )
        self.target_settings, self.test_settings = targets, test
        self.teacher: Teacher | None = None
        self._seen: tuple[ImageList, Features] | None = None  # by the teacher, during forward

    @classmethod
    def from_config(cls, cfg, input_shape):
        """The config's values."""
        targets, test = cfg.MODEL.DDN.TARGETS, cfg.MODEL.DDN.TEST
        calibrator = read_calibrator(cfg)
        return super().from_config(cfg, input_shape) | {
            "targets": TargetSettings(
                targets.MATCH, targets.IOU, targets.SCORE_THRESH, targets.AVERAGE, proposal_share(cfg)
            ),
            "test": InferenceSettings(
                test.MC_SAMPLES, test.ENSEMBLE, test.SEED, test.CLASS_PROBS, calibrator, read_box_calibrator(cfg)
            ),
        }

    def box_branches(self, features: Features, proposals: list[Instances], stage: int | None = None) -> list[BoxBranch]:
        """What leads from `features` and `proposals` to predictions: one branch, or one for each cascade stage.

        Args:
            features: feature maps (B, C, H, W) by name.
            proposals: boxes of each image.
            stage: of a cascade: only this one, whose boxes the proposals are.
        """
        raise NotImplementedError

    @property
    def last_predictor(self) -> DDNOutputLayers:
        """The one whose boxes and thresholds count."""
        return self.box_predictor[-1] if isinstance(self.box_predictor, nn.ModuleList) else self.box_predictor

    def forward(self, images, features, proposals, targets=None):
        """See `ROIHeads.forward`."""
        if self.training:
            with self._looking_at(images, features):
                if self.teacher is not None and self.target_settings.match == "gt_iou":
                    targets = self._with_teacher_logits(proposals, targets)
                return super().forward(images, features, proposals, targets)
        test = self.test_settings
        if test.mc_samples or test.ensemble or test.class_probs or self.last_predictor.box_std is not None:
            instances = self.forward_with_given_boxes(features, self._detect(images, features, proposals))
        else:
            instances, _ = super().forward(images, features, proposals)
        for found in instances if test.box_calibrator is not None else ():
            found.box_std = test.box_calibrator(found.box_std)
        if test.calibrator is not None:
            instances = [calibrated(found, test.calibrator) for found in instances]
        return instances, {}

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals, targets):
        """Those of `ROIHeads`, with the teacher's logits for each in `TEACHER_LOGITS`."""
        sampled = super().label_and_sample_proposals(proposals, targets)
        mark_unlabelled(sampled, targets)
        return self._taught(sampled, stage=0)

    @contextmanager
    def _looking_at(self, images: ImageList, features: Features) -> Iterator[None]:
        self._seen = images, features
        try:
            yield
        finally:
            self._seen = None

    def _taught(self, proposals: list[Instances], stage: int) -> list[Instances]:
        if self.teacher is not None and self.target_settings.match == "per_proposal":
            asked = [self._some_of(boxes) for boxes in proposals]
            part = [boxes[index] for boxes, index in zip(proposals, asked, strict=True)]
            logits = self.teacher.on_proposals(*self._seen, part, stage, self.target_settings.average)
            for boxes, index, rows in zip(proposals, asked, logits, strict=True):
                targets = rows.new_full((len(boxes), rows.shape[1]), torch.nan)
                targets[index] = rows
                boxes.set(TEACHER_LOGITS, targets)
        return proposals

    def _some_of(self, boxes: Instances) -> torch.Tensor:
        """Indices of those that the teacher is asked about, a random share."""
        share, device = self.target_settings.share, boxes.proposal_boxes.device
        if share == 1:  # draws nothing from the random state
            return torch.arange(len(boxes), device=device)
        return torch.randperm(len(boxes), device=device)[: math.ceil(share * len(boxes))]

    def _with_teacher_logits(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        settings = self.target_settings
        taught = self.teacher.on_ground_truth(
            *self._seen,
            proposals,
            [gt.gt_boxes.tensor for gt in targets],
            iou_threshold=settings.iou_threshold,
            score_threshold=settings.score_threshold,
            average=settings.average,
        )
        for gt, (logits, _) in zip(targets, taught, strict=True):
            gt.set(TEACHER_LOGITS, logits)
        return targets

    def _detect(self, images: ImageList, features: Features, proposals: list[Instances]) -> list[Instances]:
        if self.test_settings.ensemble:
            prediction = mean_prediction(self.teacher.passes(images, features, proposals, None))
        else:
            branches = self.box_branches(features, proposals)
            prediction = predict_boxes(branches, self.test_settings.mc_samples, self.test_settings.seed)
        predictor = self.last_predictor
        # Detectron2 drops boxes that are not finite before it numbers them
        finite = [
            b.isfinite().all(1) & p.isfinite().all(1) for b, p in zip(prediction.boxes, prediction.probs, strict=True)
        ]
        boxes, probs = (
            [values[keep] for values, keep in zip(lists, finite, strict=True)]
            for lists in (prediction.boxes, prediction.probs)
        )
        instances, kept = fast_rcnn_inference(
            boxes,
            probs,
            [p.image_size for p in proposals],
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        for image, (found, index) in enumerate(zip(instances, kept, strict=True)):
            if self.test_settings.class_probs:
                known = probs[image][index]
                found.class_probs = known[:, :-1] if predictor.use_sigmoid_ce else known
            if prediction.std is not None:
                found.score_std = prediction.std[image][finite[image]][index, found.pred_classes]
            if prediction.box_std is not None:
                found.box_std = of_class(prediction.box_std[image][finite[image]][index], found.pred_classes)
        return instances


def calibrated(detections: Instances, calibrator: ScoreCalibrator | ProbabilityCalibrator) -> Instances:
    """The detections with calibrated scores, in the same order.

    The evaluator counts detections by the scores before, which are kept as `score_before`.
    """
    detections.score_before = detections.scores
    if calibrator.task == SCORES:
        detections.scores = calibrator(detections.scores, detections.pred_classes)
    else:
        detections.class_probs = calibrator(detections.class_probs)
        detections.scores = detections.class_probs.gather(1, detections.pred_classes.unsqueeze(1)).squeeze(1)
    return detections


def _layers(head: nn.Module) -> list[nn.Module]:
    return list(head) if isinstance(head, nn.Sequential) else [head]


def _chain(layers: list[nn.Module], training: bool) -> nn.Sequential:
    chain = nn.Sequential(*layers)
    chain.training = training  # a new container starts in training mode
    return chain


@ROI_HEADS_REGISTRY.register()
class DDNRes5ROIHeads(DDNHeadsMixin, Res5ROIHeads):
    """`Res5ROIHeads` (C4 models) with dropout in res5 or before the predictor."""

    @configurable
    def __init__(self, *, res5, dropout_rate: float, dropout_after: Sequence[str], **kwargs) -> None:
        """
        Args:
            res5, kwargs: as `Res5ROIHeads`.
            dropout_rate: probability of dropping.
            dropout_after: names of the blocks that are followed by dropout, see `MODEL.DDN.DROPOUT.POSITIONS`.
        """
        blocks = dropout_in_blocks(nn.Sequential(*res5), dropout_after, dropout_rate)
        super().__init__(res5=blocks, **kwargs)

    @classmethod
    def from_config(cls, cfg, input_shape):
        """The config's values."""
        values = super().from_config(cfg, input_shape)
        channels = values["box_predictor"].cls_score.in_features
        predictor = DDNOutputLayers(cfg, ShapeSpec(channels=channels, height=1, width=1))
        dropout = {"dropout_rate": cfg.MODEL.DDN.DROPOUT.RATE, "dropout_after": dropout_positions(cfg)}
        return values | {"box_predictor": predictor} | dropout

    def box_branches(self, features, proposals, stage=None):
        """See `DDNHeadsMixin`."""
        pooled = self.pooler([features[f] for f in self.in_features], [p.proposal_boxes for p in proposals])
        layers = [*self.res5, SpatialMean(), self.box_predictor]
        return [BoxBranch(_chain(layers, self.training), pooled, proposals)]


@ROI_HEADS_REGISTRY.register()
class DDNStandardROIHeads(DDNHeadsMixin, StandardROIHeads):
    """`StandardROIHeads` (FPN and DC5 models) with `DDNOutputLayers`."""

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        values = super()._init_box_head(cfg, input_shape)
        return values | {"box_predictor": DDNOutputLayers(cfg, values["box_head"].output_shape)}

    def box_branches(self, features, proposals, stage=None):
        """See `DDNHeadsMixin`."""
        pooled = self.box_pooler([features[f] for f in self.box_in_features], [p.proposal_boxes for p in proposals])
        layers = [*_layers(self.box_head), self.box_predictor]
        return [BoxBranch(_chain(layers, self.training), pooled, proposals)]

    def _forward_mask(self, features, instances):
        return self._unless_frozen("mask_head", super()._forward_mask, features, instances)

    def _forward_keypoint(self, features, instances):
        return self._unless_frozen("keypoint_head", super()._forward_keypoint, features, instances)

    def _unless_frozen(self, name, forward, features, instances):
        """Losses that train nothing are not computed."""
        head = getattr(self, name, None)
        if self.training and head is not None and not any(p.requires_grad for p in head.parameters()):
            return {}
        return forward(features, instances)


@ROI_HEADS_REGISTRY.register()
class DDNCascadeROIHeads(DDNStandardROIHeads, CascadeROIHeads):
    """`CascadeROIHeads` whose stages all learn from the teacher.

    "gt_iou": every stage learns what the teacher's whole cascade predicts for a ground-truth box. "per_proposal": each
    stage learns from the teacher's same stage. In all passes of the teacher the boxes that stages 2 and 3 look at are
    those of the pass without dropout: passes differ in what they predict for a box, and pooling is shared.
    """

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        values = super(DDNStandardROIHeads, cls)._init_box_head(cfg, input_shape)  # CascadeROIHeads' own
        predictors = [
            DDNOutputLayers(cfg, head.output_shape, box2box_transform=predictor.box2box_transform)
            for head, predictor in zip(values["box_heads"], values["box_predictors"], strict=True)
        ]
        return values | {"box_predictors": predictors}

    def box_branches(self, features, proposals, stage=None):
        """See `DDNHeadsMixin`."""
        maps = [features[f] for f in self.box_in_features]
        image_sizes = [p.image_size for p in proposals]
        branches = []
        for number in range(self.num_cascade_stages) if stage is None else [stage]:
            if branches:
                boxes = branches[-1].predictor.predict_boxes(branches[-1].predict(), proposals)
                proposals = self._create_proposals_from_boxes(boxes, image_sizes)
            pooled = self.box_pooler(maps, [p.proposal_boxes for p in proposals])
            layers = [*_layers(self.box_head[number]), self.box_predictor[number]]
            branches.append(BoxBranch(_chain(layers, self.training), pooled, proposals))
        return branches

    @torch.no_grad()
    def _match_and_label_boxes(self, proposals, stage, targets):
        proposals = super()._match_and_label_boxes(proposals, stage, targets)
        mark_unlabelled(proposals, targets)
        for boxes, gt in zip(proposals, targets, strict=True):
            if len(gt) and gt.has(TEACHER_LOGITS):
                matched, _ = self.proposal_matchers[stage](pairwise_iou(gt.gt_boxes, boxes.proposal_boxes))
                boxes.set(TEACHER_LOGITS, gt.get(TEACHER_LOGITS)[matched])
        return self._taught(proposals, stage)
