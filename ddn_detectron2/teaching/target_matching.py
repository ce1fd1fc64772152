"""Targets from the teacher's passes: which detections belong to a ground-truth box, and the mean of their logits.

Shapes: G ground-truth boxes, D detections, M passes, K foreground classes.
"""

import math
from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor
from torch.nn.functional import logsigmoid

# Field of the proposals and of the ground truth, (n, K + 1) each: the teacher's logits; a row of NaN where there is no
# target. Detectron2 hands fields that start with "gt_" on from a ground-truth box to the proposals matched with it.
TEACHER_LOGITS = "gt_teacher_logits"


def most_overlapping(gt_boxes: Tensor, boxes: Tensor, iou_threshold: float) -> Tensor:
    """For each of `gt_boxes` (G, 4) the index (G,) of the one of `boxes` (D, 4) that overlaps it most.

    -1 where no overlap reaches the threshold; the first of equals, which is the one of the highest score where
    detections are sorted by score. A detection may serve several ground-truth boxes.
    """
    if not len(boxes) or not len(gt_boxes):
        return torch.full((len(gt_boxes),), -1, dtype=torch.int64, device=gt_boxes.device)
    overlap = pairwise_iou(Boxes(gt_boxes), Boxes(boxes))
    best = overlap.amax(1, keepdim=True)
    # argmax does not promise the first of equals
    position = torch.arange(len(boxes), device=boxes.device)
    first = position.where(overlap == best, len(boxes)).amin(1)
    return first.where(best.squeeze(1) >= iou_threshold, -1)


def probabilities(logits: Tensor, sigmoid: bool) -> Tensor:
    """What logits (..., K + 1) mean: one distribution, or for `sigmoid` each class a probability of its own.

    The last of the latter means nothing: Detectron2 has it for heads with a sigmoid, too, but never looks at it.
    """
    return logits.sigmoid() if sigmoid else logits.softmax(-1)


def average_logits(logits: Tensor, found: Tensor, average: str, sigmoid: bool = False) -> Tensor:
    """Target logits (G, K + 1) from those of each pass.

    Args:
        logits: (M, G, K + 1).
        found: (M, G) bool, whether the pass detected the box.
        average: "logits", their mean; "probs", the logarithm of the mean probabilities, shifted to the mean of the
            mean logits, so that only what softmax sees is taught; for `sigmoid` the logit of each mean probability.
        sigmoid: see `probabilities`.

    Where no pass found the box all classes are equal: a box that the teacher misses is a hard one. Each gets 1/(K + 1).
    """
    count = found.sum(0).unsqueeze(1)
    weight = (found.to(logits.dtype) / count.squeeze(1).clamp(min=1)).unsqueeze(2)
    mean = (logits.where(found.unsqueeze(2), 0) * weight).sum(0)
    if average == "probs":

        def log_mean(log_probs: Tensor) -> Tensor:
            return (log_probs + weight.log()).where(found.unsqueeze(2), -torch.inf).logsumexp(0)

        if sigmoid:
            mean = log_mean(logsigmoid(logits)) - log_mean(logsigmoid(-logits))
        else:
            log_probs = log_mean(logits.log_softmax(-1))
            mean = log_probs - log_probs.mean(1, keepdim=True) + mean.mean(1, keepdim=True)
    # 1/(K + 1) is a logit of -log K, where it is not a softmax of equals
    return mean.where(count > 0, -math.log(logits.shape[-1] - 1) if sigmoid else 0)


def gt_targets(
    gt_boxes: Tensor,
    passes: Sequence[tuple[Tensor, Tensor]],
    num_logits: int,
    iou_threshold: float,
    average: str,
    sigmoid: bool = False,
) -> tuple[Tensor, Tensor]:
    """Target logits (G, K + 1) and how many of the passes found the box (G,).

    Args:
        gt_boxes: (G, 4).
        passes: for each its detections, boxes (D, 4) and logits (D, K + 1), best score first.
        num_logits: K + 1.
        iou_threshold, average, sigmoid: see `most_overlapping` and `average_logits`.
    """
    logits = gt_boxes.new_zeros(len(passes), len(gt_boxes), num_logits)
    found = torch.zeros(len(passes), len(gt_boxes), dtype=torch.bool, device=gt_boxes.device)
    for number, (boxes, detected) in enumerate(passes):
        index = most_overlapping(gt_boxes, boxes, iou_threshold)
        found[number] = index >= 0
        logits[number, found[number]] = detected[index[found[number]]].to(logits.dtype)
    return average_logits(logits, found, average, sigmoid), found.sum(0)
