"""Passes of the box head: the deterministic one, and Monte-Carlo dropout that repeats only what differs.

Shapes: R boxes over all images, K foreground classes, M passes, B images.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from detectron2.layers import cat
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from uncertainty_core import RunningMoments, derive_seed, split_at_dropout
from uncertainty_core.sampling import mc_dropout

from ..boxes import corner_std
from .target_matching import average_logits, probabilities


class SpatialMean(nn.Module):
    """Mean over positions: (R, C, H, W) to (R, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, C)."""
        return x.mean(dim=[2, 3])


@dataclass
class BoxBranch:
    """A chain of layers from the features of boxes to predictions for them.

    layers: ends in the predictor.
    features: pooled features (R, C, H, W).
    proposals: the boxes, for each image, in "proposal_boxes".
    """

    layers: nn.Sequential
    features: Tensor
    proposals: list[Instances]

    @property
    def predictor(self) -> FastRCNNOutputLayers:
        """The last layer."""
        return self.layers[-1]

    @property
    def sigmoid(self) -> bool:
        """Whether each class has a probability of its own."""
        return getattr(self.predictor, "use_sigmoid_ce", False)  # younger than Detectron2 0.5

    def predict(self) -> tuple[Tensor, Tensor]:
        """Logits (R, K + 1), box deltas and what else the predictor gives, in the mode the layers are in."""
        return self.layers(self.features)


def mc_predictions(
    branches: Sequence[BoxBranch], num_samples: int, seed: int | None = None, keys: Sequence[int | str] | None = None
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """M times the logits (R, K + 1) and box deltas of each branch, with dropout on, without gradients.

    What comes before a branch's first dropout runs once.

    Args:
        branches: of eval-mode layers with at least one dropout.
        num_samples: M.
        seed: makes the masks a function of (seed, key, number of the pass, number of the branch); None draws from the
            global state.
        keys: of the B images; None for the same masks in each, whatever the batch.
    """
    with torch.no_grad():
        parts = [split_at_dropout(branch.layers) for branch in branches]
        shared = [first(branch.features) for (first, _), branch in zip(parts, branches, strict=True)]
    counts = [len(proposals) for proposals in branches[0].proposals]
    keys = [0] * len(counts) if keys is None else keys
    for draw in range(num_samples):
        outputs = []
        for number, ((_, sampled), features) in enumerate(zip(parts, shared, strict=True)):
            seeds = None if seed is None else [derive_seed(seed, key, draw, number) for key in keys]
            with torch.no_grad(), mc_dropout(sampled, seeds=seeds, counts=None if seeds is None else counts):
                outputs.append(sampled(features)[:2])
        yield outputs


def mean_probs(branches: Sequence[BoxBranch], outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    """Probabilities (R, K + 1) of what all branches predict; a cascade's are averaged as Detectron2 does it."""
    of_branches = zip(branches, outputs, strict=True)
    return sum(probabilities(predicted[0], branch.sigmoid) for branch, predicted in of_branches) * (1.0 / len(outputs))


def joint_logits(logits: Sequence[Tensor], sigmoid: bool = False) -> Tensor:
    """Logits (R, K + 1) of all branches together, given those of each: a cascade's mean of probabilities."""
    if len(logits) == 1:
        return logits[0]
    stages = torch.stack(list(logits))
    found = torch.ones(stages.shape[:2], dtype=torch.bool, device=stages.device)
    return average_logits(stages, found, "probs", sigmoid)


@dataclass
class BoxPrediction:
    """What one or many passes predict for the boxes of each image.

    boxes: (n, 4K) or (n, 4), as the predictor gives them.
    probs: (n, K + 1).
    std: deviation of `probs` over the passes or members (n, K + 1); None after a single one.
    box_std: of `boxes`, in their shape: over the passes or members, or what a single pass predicts; None for neither.
    """

    boxes: list[Tensor]
    probs: list[Tensor]
    std: list[Tensor] | None = None
    box_std: list[Tensor] | None = None


def predict_boxes(branches: Sequence[BoxBranch], num_samples: int = 0, seed: int | None = None) -> BoxPrediction:
    """One deterministic pass (`num_samples` 0), or the mean probabilities and mean boxes of M stochastic ones."""
    probs, deltas = RunningMoments(), RunningMoments()
    passes = mc_predictions(branches, num_samples, seed) if num_samples else [[b.predict() for b in branches]]
    for outputs in passes:
        probs.update(mean_probs(branches, outputs))
        deltas.update(outputs[-1][1])
    predictor, proposals = branches[-1].predictor, branches[-1].proposals
    counts = [len(of_image) for of_image in proposals]
    boxes = list(predictor.predict_boxes((probs.mean, deltas.mean), proposals))
    delta_std = box_std = None
    if num_samples:
        delta_std = deltas.std()
    elif predictor.box_std is not None:
        delta_std = outputs[-1].log_std.exp()
    if delta_std is not None:
        starts = cat([of_image.proposal_boxes.tensor for of_image in proposals])
        box_std = list(corner_std(delta_std, cat(boxes), starts, predictor.box2box_transform).split(counts))
    return BoxPrediction(
        boxes, list(probs.mean.split(counts)), list(probs.std().split(counts)) if num_samples else None, box_std
    )


def mean_prediction(passes: Iterable[tuple[Sequence[BoxBranch], Sequence[Sequence[Tensor]]]]) -> BoxPrediction:
    """The mean probabilities and mean boxes of a teacher's passes, see `Teacher.passes`.

    Boxes are averaged where they are, since the members of an ensemble of cascades refine proposals of their own.
    """
    probs, boxes = RunningMoments(), RunningMoments()
    for branches, outputs in passes:
        last = branches[-1]
        probs.update(mean_probs(branches, outputs))
        boxes.update(cat(list(last.predictor.predict_boxes(outputs[-1], last.proposals))))
    counts = [len(proposals) for proposals in last.proposals]
    moments = boxes.mean, probs.mean, probs.std(), boxes.std()
    return BoxPrediction(*(list(values.split(counts)) for values in moments))
