"""What is predicted of each pixel, the same for students, teachers and test-time augmentation.

Shapes: B images, C outputs of the segmentor (classes, or 1 for the second of two), H x W pixels.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead, SideAdapterCLIPHead, VPDDepthHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from uncertainty_core import RunningMoments, entropy
from uncertainty_core.errors import UserError
from uncertainty_core.streaming.dtypes import at_least_float32

# The uncertainties that several predictors have of a pixel, and that a student can learn, each in [0, 1]. What data
# samples call them stands behind pred_ and gt_.
#   std: deviation over predictors of the probability of the class that their mean predicts
#   entropy: of the mean probabilities, divided by log C
#   mutual_information: that less the mean of the predictors' own entropies
#   error: 1 - the mean probability of the true class
#   own_error: 1 - the student's own probability of it, which no other predictor has a part in
FIELDS = {"std": "uncertainty", **{name: name for name in ("entropy", "mutual_information", "error", "own_error")}}
FROM_LABELS = ("error", "own_error")  # known in training alone: no teacher predicts them, and no store holds them

SUITED_HEADS = "choose a decode head that ends in cls_seg, such as FCNHead, ASPPHead, UPerHead or SegformerHead"
# What `seg_logits` are of the decode heads whose softmax is no probability.
_OTHER_OUTPUTS = {
    MaskFormerHead: "sums of masks",
    Mask2FormerHead: "sums of masks",
    SideAdapterCLIPHead: "sums of masks",
    VPDDepthHead: "depths",
}


def check_gives_logits(segmentor: Mapping[str, Any]) -> None:
    """Raise UserError if a segmentor, by its config, has a (last) decode head that gives no logits of classes.

    Nothing is built: some of these heads need packages that may be absent.
    """
    head = segmentor.get("decode_head") or {}
    kind = (head[-1] if isinstance(head, Sequence) else head).get("type")
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    for other, outputs in _OTHER_OUTPUTS.items():
        if isinstance(kind, type) and issubclass(kind, other):
            raise UserError(
                f"{kind.__name__} gives {outputs}, not the logits of classes that probabilities are computed from: "
                f"{SUITED_HEADS}"
            )


def checked_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """The names of uncertainties; UserError unless they are of `FIELDS`, each once, "std" first."""
    names = tuple(outputs)
    if names[:1] != ("std",) or not set(names) <= set(FIELDS) or len(set(names)) < len(names):
        raise UserError(f'outputs must begin with "std", and may go on with {", ".join(list(FIELDS)[1:])}; got {names}')
    return names


def probabilities(logits: Tensor) -> Tensor:
    """Probabilities (B, C, H, W), at least in float32, of segmentation `logits` (B, C, H, W)."""
    logits = at_least_float32(logits)
    return logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()


def probabilities_of(sample: SegDataSample) -> Tensor:
    """Probabilities (1, C, H, W) of a sample's prediction."""
    values = sample.seg_logits.data[None]
    return values.softmax(1) if values.shape[1] > 1 else values  # which mmseg keeps as a probability


def both_classes(probabilities: Tensor) -> Tensor:
    """Probabilities (B, C, H, W) as they are, or, where C is 1, of both classes (B, 2, H, W)."""
    return probabilities if probabilities.shape[1] > 1 else torch.cat((1 - probabilities, probabilities), dim=1)


def normalised_entropy(probabilities: Tensor) -> Tensor:
    """Entropy (B, 1, H, W) in [0, 1] of `probabilities` (B, C, H, W): that of even ones is 1."""
    both = both_classes(probabilities)
    return entropy(both, reduction="none").unsqueeze(1).div_(math.log(both.shape[1])).clamp_(0, 1)


class Prediction(NamedTuple):
    """What probabilities predict for each pixel, in the terms of mmseg.

    seg_logits: (B, C, H, W), their softmax is the probabilities; if C is 1 they are the probabilities.
    classes: the predicted ones (B, 1, H, W), int64.
    """

    seg_logits: Tensor
    classes: Tensor

    @property
    def probabilities(self) -> Tensor:
        """(B, C, H, W)."""
        return self.seg_logits.softmax(1) if self.seg_logits.shape[1] > 1 else self.seg_logits


class Judgement(NamedTuple):
    """What several predictors predict together: the prediction of their mean, and their uncertainties by name.

    Each is (B, 1, H, W); "std" is (B, C, H, W) if it is that of every class.
    """

    prediction: Prediction
    maps: dict[str, Tensor]


def joined(parts: Sequence[Judgement]) -> Judgement:
    """The judgement of a batch from those of its parts, in their order."""
    predictions, maps = zip(*parts, strict=True)
    return Judgement(
        Prediction(*(torch.cat(values) for values in zip(*predictions, strict=True))),
        {name: torch.cat([of_part[name] for of_part in maps]) for name in maps[0]},
    )


def prediction(mean: Tensor, threshold: float | None) -> Prediction:
    """Of probabilities `mean` (B, C, H, W); `threshold` is that of the decode head, for C = 1."""
    if mean.shape[1] == 1:
        return Prediction(mean, (mean > threshold).long())
    # no logarithm of zero, whose infinity would make sums NaN; and max finds the first maximum faster than argmax
    return Prediction(mean.clamp(min=torch.finfo(mean.dtype).tiny).log_(), mean.max(1, keepdim=True).indices)


def set_prediction(sample: SegDataSample, seg_logits: Tensor, classes: Tensor) -> None:
    """Give a sample its `seg_logits` (C, H, W) and predicted `classes` (1, H, W)."""
    sample.seg_logits, sample.pred_sem_seg = PixelData(data=seg_logits), PixelData(data=classes)


def set_uncertainty(sample: SegDataSample, maps: Mapping[str, Tensor]) -> None:
    """Give a sample with its prediction the uncertainties (1, H, W) by name; "std" may be (C, H, W), of each class."""
    for name, values in maps.items():
        if len(values) > 1:
            sample.pred_class_uncertainty = PixelData(data=values)
            values = values.gather(0, sample.pred_sem_seg.data.long())
        sample.set_data({f"pred_{FIELDS[name]}": PixelData(data=values)})


def uncertainty_of(sample: SegDataSample) -> dict[str, Tensor]:
    """What `set_uncertainty` was given."""
    maps = {name: sample.get(f"pred_{field}").data for name, field in FIELDS.items() if f"pred_{field}" in sample}
    return maps | ({"std": sample.pred_class_uncertainty.data} if "pred_class_uncertainty" in sample else {})


# Elements of a band of rows: its temporaries fit the cache of a processor.
_BAND = 2**18


class Consensus:
    """What several predictors predict together; fed one at a time, of which it keeps no more than sums.

    Args:
        ddof: squares of deviations are divided by the number of predictors less this.
        threshold: see `prediction`.
        outputs: names of the uncertainties that are asked for.
    """

    def __init__(self, ddof: int, threshold: float | None, outputs: Collection[str] = ("std",)) -> None:
        self.ddof, self.threshold, self.outputs = ddof, threshold, outputs
        self._bands: defaultdict[int, RunningMoments] = defaultdict(RunningMoments)
        self._entropies: defaultdict[int, RunningMoments] = defaultdict(RunningMoments)  # of predictors by themselves

    def update(self, logits: Tensor) -> None:
        """Add a predictor's segmentation `logits` (B, C, H, W)."""
        # a GPU has more to lose by many small steps than by big temporaries
        rows = logits.shape[2] if logits.is_cuda else max(1, _BAND // logits[:, :, 0].numel())
        for number, band in enumerate(logits.split(rows, dim=2)):
            values = probabilities(band)
            self._bands[number].update(values)
            if "mutual_information" in self.outputs:
                self._entropies[number].update(normalised_entropy(values))

    def result(self, class_wise: bool) -> Judgement:
        """The mean's prediction, and the uncertainties in the order of their names in `outputs`.

        Args:
            class_wise: "std" is the deviation of every class, and not only of the predicted one.
        """
        parts = []
        for number, moments in self._bands.items():
            mean = moments.mean
            predicted = prediction(mean, self.threshold)
            every_class = class_wise or mean.shape[1] == 1
            maps = {"std": moments.std(self.ddof, None if every_class else predicted.classes)}
            if {"entropy", "mutual_information"} & set(self.outputs):
                maps["entropy"] = normalised_entropy(mean)
            if "mutual_information" in self.outputs:
                maps["mutual_information"] = (maps["entropy"] - self._entropies[number].mean).clamp_(min=0)
            parts.append((*predicted, *(maps[name] for name in self.outputs)))
        seg_logits, classes, *found = (torch.cat(bands, dim=2) for bands in zip(*parts, strict=True))
        return Judgement(Prediction(seg_logits, classes), dict(zip(self.outputs, found, strict=True)))
