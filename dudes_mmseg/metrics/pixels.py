"""A sample of the pixels of a data set, with what a segmentor predicts of them, for calibrators to be fitted to.

Shapes: C classes, H x W pixels, n pixels of a sample.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from uncertainty_core.sampling.pixels import SIZE, PixelSample
from uncertainty_core.streaming.dtypes import at_least_float32

from ..models.calibration import half_of
from ..models.maps import image_key
from .logits import class_logits
from .streaming import predicted_uncertainty, true_classes


@METRICS.register_module()
class PixelSampleMetric(BaseMetric):
    """Draws the sample; its only value is `sample/pixels`, their number.

    After `evaluate`, `classes` and `errors` hold a sample of each half of the images, see `half_of`: probabilities of
    classes (n, C) with the true ones, and of the same pixels, where there is such a map, the uncertainty u as
    (1 - u, u) with 1 where the predicted class is wrong.

    Args:
        size: of each half's sample at the most.
        seed: of the draw.
        ignore_index: label of void, which is left out.
        kwargs: collect_device and prefix, as `BaseMetric`.
    """

    default_prefix = "sample"

    def __init__(self, size: int = SIZE, seed: int = 0, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.seed, self.ignore_index = size, seed, ignore_index
        self.classes, self.errors = self._empty(), self._empty()

    def _empty(self) -> tuple[PixelSample, PixelSample]:
        first, second = (PixelSample(self.size, self.seed, self.ignore_index) for _ in range(2))
        return first, second

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Let a batch of predictions take part."""
        for sample in data_samples:
            label, key = true_classes(sample), image_key(sample)
            half = half_of(key)
            self.classes[half].add(key, at_least_float32(class_logits(sample)).softmax(0), label)
            if "pred_uncertainty" in sample:
                uncertainty = predicted_uncertainty(sample)
                wrong = (sample["pred_sem_seg"]["data"].squeeze(0) != label).long()
                wrong[label == self.ignore_index] = self.ignore_index
                self.errors[half].add(key, torch.stack((1 - uncertainty, uncertainty)), wrong)

    def evaluate(self, size: int) -> dict[str, float]:
        """The number of pixels in the sample of all images; images that the sampler repeated count once."""
        parts = all_gather_object((self.classes, self.errors))
        self.classes, self.errors = self._empty(), self._empty()
        for classes, errors in parts:
            for half in range(2):
                self.classes[half].merge(classes[half])
                self.errors[half].merge(errors[half])
        return {f"{self.prefix}/pixels": min(self.size, sum(map(len, self.classes)))}

    def compute_metrics(self, results: list) -> dict:
        """Not used: `evaluate` needs no rows."""
        raise NotImplementedError


def of_all(halves: tuple[PixelSample, PixelSample]) -> PixelSample:
    """The sample of all images, from those of their halves."""
    sample = PixelSample(halves[0].size, halves[0].seed, halves[0].ignore_index)
    for half in halves:
        sample.merge(half)
    return sample
