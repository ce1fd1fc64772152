"""Teachers: what tells the student how sure to be about a box.

Shapes: R boxes over all images, K foreground classes, M passes, B images.
"""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from uncertainty_core import Frozen

from .sampling import BoxBranch, joint_logits, mc_predictions
from .target_matching import average_logits, gt_targets, probabilities

Features = dict[str, Tensor]


class Teacher:
    """M passes over the student's proposals. Subclasses define where a pass comes from.

    `sigmoid`: whether each of the `num_classes` has a probability of its own.
    """

    num_classes: int
    sigmoid: bool

    def passes(
        self,
        images: ImageList,
        features: Features,
        proposals: list[Instances],
        stage: int | None,
        keys: Sequence[int | str] | None = None,
    ) -> Iterator[tuple[list[BoxBranch], list[tuple[Tensor, Tensor]]]]:
        """For each pass the branches, and the logits (R, K + 1) and box deltas of each.

        Args:
            images, features: what the student sees, and what its trunk makes of it.
            proposals: boxes to predict for.
            stage: of a cascade, if only one is asked for.
            keys: of the B images, where the passes shall depend on nothing else.
        """
        raise NotImplementedError

    def judges(self, images: ImageList) -> list[Collection[int] | None]:
        """For each image the numbers of the passes that count, None for all."""
        return [None] * len(images)

    def on_proposals(
        self, images: ImageList, features: Features, proposals: list[Instances], stage: int, average: str
    ) -> list[Tensor]:
        """Target logits (n, K + 1) of each image's proposals."""
        passes = self.passes(images, features, proposals, stage)
        logits = torch.stack([outputs[0][0] for _, outputs in passes])
        judges, counts = self.judges(images), torch.tensor([len(p) for p in proposals])
        asked = torch.tensor([[of is None or number in of for of in judges] for number in range(len(logits))])
        asked = asked.repeat_interleave(counts, 1).to(logits.device)
        targets = average_logits(logits, asked, average, self.sigmoid)
        check_finite(targets)
        return list(targets.split(counts.tolist()))

    def on_ground_truth(
        self,
        images: ImageList,
        features: Features,
        proposals: list[Instances],
        gt_boxes: Sequence[Tensor],
        *,
        iou_threshold: float,
        score_threshold: float,
        average: str,
        keys: Sequence[int | str] | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """For each image, target logits (G, K + 1) of its `gt_boxes` (G, 4) and how many passes found each (G,)."""
        detections: list[list[tuple[Tensor, Tensor]]] = [[] for _ in proposals]
        judges = self.judges(images)
        for number, (branches, outputs) in enumerate(self.passes(images, features, proposals, None, keys)):
            of_images = zip(detect(branches, outputs, score_threshold), detections, judges, strict=True)
            for found, image_detections, of in of_images:
                if of is None or number in of:
                    image_detections.append(found)
        targets = [
            gt_targets(boxes, passes, self.num_classes + 1, iou_threshold, average, self.sigmoid)
            for boxes, passes in zip(gt_boxes, detections, strict=True)
        ]
        for logits, _ in targets:
            check_finite(logits)
        return targets


def check_finite(logits: Tensor) -> None:
    """Raise where a teacher has gone wrong, before the student learns it."""
    if not logits.isfinite().all():
        raise FloatingPointError("the teacher's logits are not finite: its weights are damaged or do not fit the model")


def detect(
    branches: Sequence[BoxBranch], outputs: Sequence[tuple[Tensor, Tensor]], score_threshold: float
) -> list[tuple[Tensor, Tensor]]:
    """For each image boxes (D, 4) and logits (D, K + 1) of the detections that pass threshold and NMS, best first."""
    last = branches[-1]
    predictor, counts = last.predictor, [len(p) for p in last.proposals]
    logits = joint_logits([of_branch[0] for of_branch in outputs], last.sigmoid)
    check_finite(logits)
    instances, kept = fast_rcnn_inference(
        predictor.predict_boxes((logits, outputs[-1][1]), last.proposals),
        probabilities(logits, last.sigmoid).split(counts),
        [p.image_size for p in last.proposals],
        score_threshold,
        predictor.test_nms_thresh,
        predictor.test_topk_per_image,
    )
    return [
        (found.pred_boxes.tensor, rows[index])
        for found, rows, index in zip(instances, logits.split(counts), kept, strict=True)
    ]


class MCDropoutTeacher(Teacher, Frozen):
    """A frozen copy of the student's box head at its start, with dropout on. It shares the student's frozen trunk."""

    def __init__(self, heads: nn.Module, num_samples: int, seed: int) -> None:
        """
        Args:
            heads: DDN ROI heads.
            num_samples: M.
            seed: of the masks of keyed passes.
        """
        # masks and keypoints are not taught, and are left out of the copy
        unused = [getattr(heads, name) for name in ("mask_head", "keypoint_head") if hasattr(heads, name)]
        super().__init__(copy.deepcopy(heads, {id(module): None for module in unused}))
        self.num_classes, self.num_samples, self.seed = heads.num_classes, num_samples, seed
        self.sigmoid = heads.last_predictor.use_sigmoid_ce

    def passes(self, images, features, proposals, stage, keys=None):
        """See `Teacher`."""
        with torch.no_grad():
            branches = self.module.box_branches(features, proposals, stage)
        seed = None if keys is None else self.seed
        for outputs in mc_predictions(branches, self.num_samples, seed, keys):
            yield branches, outputs


class EnsembleTeacher(Teacher, Frozen):
    """Detectors trained apart, or box heads trained apart on one trunk. All predict for the student's proposals."""

    def __init__(
        self, members: Sequence[nn.Module], trunk: nn.Module, held_out: Mapping[str, Collection[int]] | None = None
    ) -> None:
        """
        Args:
            members: `DDNRCNN` models with their weights.
            trunk: the student's backbone, which runs for those members that have the same.
            held_out: by the keys of images, the numbers of the members that never saw them; they alone are asked about
                these. None where all are asked about all.
        """
        super().__init__(nn.ModuleList(members))
        heads = members[0].roi_heads
        self.num_classes, self.sigmoid = heads.num_classes, heads.last_predictor.use_sigmoid_ce
        self.held_out = held_out or {}
        self.shares_trunk = [_same_weights(member.backbone, trunk) for member in members]

    def judges(self, images):
        """See `Teacher`."""
        return [self.held_out.get(key) for key in images.keys] if self.held_out else super().judges(images)

    def passes(self, images, features, proposals, stage, keys=None):
        """See `Teacher`."""
        for member, shares in zip(self.module, self.shares_trunk, strict=True):
            with torch.no_grad():
                maps = features if shares else member.backbone(images.tensor)
                branches = member.roi_heads.box_branches(maps, proposals, stage)
                outputs = [branch.predict() for branch in branches]
            yield branches, outputs


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
