"""What a data sample holds of a prediction, the same for students, teachers and test-time augmentation.

Shapes: B images, C outputs of the segmentor (classes, or 1 for the second of two), H x W pixels.
"""

from collections import defaultdict
from typing import NamedTuple

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from uncertainty_core import RunningMoments
from uncertainty_core.streaming.dtypes import at_least_float32


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
    """What several predictors say together: the prediction of their mean, and its uncertainty std (B, 1 or C, H, W)."""

    prediction: Prediction
    std: Tensor


def prediction(mean: Tensor, threshold: float | None) -> Prediction:
    """Of probabilities `mean` (B, C, H, W); `threshold` is that of the decode head, for C = 1."""
    if mean.shape[1] == 1:
        return Prediction(mean, (mean > threshold).long())
    # no logarithm of zero, whose infinity would make sums NaN; and max finds the first maximum faster than argmax
    return Prediction(mean.clamp(min=torch.finfo(mean.dtype).tiny).log_(), mean.max(1, keepdim=True).indices)


def set_prediction(sample: SegDataSample, seg_logits: Tensor, classes: Tensor) -> None:
    """Give a sample its `seg_logits` (C, H, W) and predicted `classes` (1, H, W)."""
    sample.seg_logits, sample.pred_sem_seg = PixelData(data=seg_logits), PixelData(data=classes)


def set_uncertainty(sample: SegDataSample, maps: Tensor) -> None:
    """Give a sample with its prediction the uncertainty `maps` (1, H, W), or (C, H, W) of each class."""
    if len(maps) > 1:
        sample.pred_class_uncertainty = PixelData(data=maps)
        maps = maps.gather(0, sample.pred_sem_seg.data.long())
    sample.pred_uncertainty = PixelData(data=maps)


# Elements of a band of rows: its temporaries fit the cache of a processor.
_BAND = 2**18


class Consensus:
    """Mean and deviation of the probabilities of several predictors, fed one at a time; two maps are all it keeps.

    Args:
        ddof: squares of deviations are divided by the number of predictors less this.
        threshold: see `prediction`.
    """

    def __init__(self, ddof: int, threshold: float | None) -> None:
        self.ddof, self.threshold = ddof, threshold
        self._bands: defaultdict[int, RunningMoments] = defaultdict(RunningMoments)

    def update(self, logits: Tensor) -> None:
        """Add a predictor's segmentation `logits` (B, C, H, W)."""
        # a GPU has more to lose by many small steps than by big temporaries
        rows = logits.shape[2] if logits.is_cuda else max(1, _BAND // logits[:, :, 0].numel())
        for number, band in enumerate(logits.split(rows, dim=2)):
            self._bands[number].update(probabilities(band))

    def result(self, class_wise: bool) -> Judgement:
        """The mean's prediction, and its uncertainty: the deviation (B, 1, H, W) of the predicted class's probability.

        Args:
            class_wise: give the deviation of every class (B, C, H, W) instead.
        """
        parts = []
        for moments in self._bands.values():
            predicted = prediction(moments.mean, self.threshold)
            every_class = class_wise or predicted.seg_logits.shape[1] == 1
            parts.append((*predicted, moments.std(self.ddof, None if every_class else predicted.classes)))
        seg_logits, classes, std = (torch.cat(bands, dim=2) for bands in zip(*parts, strict=True))
        return Judgement(Prediction(seg_logits, classes), std)
