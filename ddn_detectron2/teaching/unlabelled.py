"""Images that nobody has labelled: losses with the ground truth pass them over, the teacher alone teaches.

Shapes: R boxes over all images.
"""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

# Field of the ground truth of an unlabelled image, and of the proposals in it, which are not background for that.
UNLABELLED = "unlabelled"


def unknown_objects(image_size: tuple[int, int]) -> Instances:
    """The ground truth of an unlabelled image: no boxes, and a mark that tells it from an image without objects."""
    boxes, classes = Boxes(torch.zeros(0, 4)), torch.zeros(0, dtype=torch.int64)
    return Instances(tuple(image_size), gt_boxes=boxes, gt_classes=classes, **{UNLABELLED: torch.zeros(0)})


def mark_unlabelled(proposals: Sequence[Instances], targets: Sequence[Instances]) -> None:
    """Mark the proposals of each image whose ground truth is marked, in place."""
    for boxes, truth in zip(proposals, targets, strict=True):
        if truth.has(UNLABELLED):
            boxes.set(UNLABELLED, torch.zeros(len(boxes), device=boxes.proposal_boxes.device))


def of_labelled(predictions: Sequence[Tensor], proposals: list[Instances]) -> tuple[Sequence[Tensor], list[Instances]]:
    """Of `predictions` (R, ...) and the proposals that they are for what belongs to labelled images.

    The other images keep a place in the list of proposals, with none of them.
    """
    labelled = [not boxes.has(UNLABELLED) for boxes in proposals]
    if all(labelled):
        return predictions, proposals
    rows = torch.cat([torch.full((len(boxes),), known) for boxes, known in zip(proposals, labelled, strict=True)])
    kept = [boxes if known else boxes[:0] for boxes, known in zip(proposals, labelled, strict=True)]
    return [values[rows.to(values.device)] for values in predictions], kept
