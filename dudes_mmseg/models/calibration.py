"""Calibrators in segmentors: of the probabilities of classes, and of the uncertainty.

Both come last, on predictions of the image's own size: what they are fitted to is what they map.

Shapes: C outputs of the segmentor (classes, or 1 for the second of two), H x W pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from uncertainty_core import derive_seed, file_sha256
from uncertainty_core.errors import UserError
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.recalibration import (
    Calibrator,
    CalibratorError,
    ProbabilityCalibrator,
    ScoreCalibrator,
    check_fits,
    from_json,
    load,
)
from uncertainty_core.recalibration.base import PROBABILITIES, SCORES
from uncertainty_core.streaming.dtypes import at_least_float32

from .consensus import Prediction, both_classes, set_prediction
from .maps import image_key

KEYS = ("calibrator", "uncertainty_calibrator")  # of a model's config

Source = str | Path | Mapping[str, Any]  # a calibrator's file, or what such a file holds


def half_of(image: str) -> int:
    """Which half of a data set the image of this key is in, 0 or 1; other images have no part in it."""
    return derive_seed("half", image) % 2


def read_calibrators(source: Source | Sequence[Source] | None, out_channels: int) -> tuple[ProbabilityCalibrator, ...]:
    """What `model.calibrator` names, to be applied by `calibrate`: none, one, or one that was fitted to each half."""
    if source is None:
        return ()
    sources = [source] if isinstance(source, str | Path | Mapping) else list(source)
    if len(sources) > 2:
        raise UserError(f"model.calibrator: must be one, or one of each half of the images, got {len(sources)}")
    return tuple(_read("calibrator", single, PROBABILITIES, out_channels) for single in sources)


def read_uncertainty_calibrator(source: Source | None, out_channels: int) -> ScoreCalibrator | None:
    """What `model.uncertainty_calibrator` names."""
    return None if source is None else _read("uncertainty_calibrator", source, SCORES, out_channels)


def _read(key: str, source: Source, task: str, out_channels: int) -> Calibrator:
    try:
        calibrator = from_json(strict_json(dict(source))) if isinstance(source, Mapping) else load(source)
        check_fits(calibrator, task, max(out_channels, 2))
    except CalibratorError as error:
        raise UserError(f"model.{key}: {error}") from None
    return calibrator


def by_content(model: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model with the SHA-256 sums of its calibrators' files in the place of their paths."""

    def content(source: Any) -> Any:
        if isinstance(source, str | Path):
            return file_sha256(source)
        return [content(single) for single in source] if isinstance(source, list | tuple) else source

    return {**model, **{key: content(model[key]) for key in KEYS if key in model}}


def calibrated_prediction(seg_logits: Tensor, calibrator: ProbabilityCalibrator, threshold: float | None) -> Prediction:
    """What calibrated `seg_logits` (B, C, H, W) predict; if C is 1 they are probabilities, as mmseg keeps them.

    Args:
        seg_logits: of the prediction.
        calibrator: of probabilities.
        threshold: of the decode head, for C = 1.
    """
    if seg_logits.shape[1] > 1:
        calibrated = calibrator.on_logits(seg_logits)
        return Prediction(calibrated, calibrated.argmax(1, keepdim=True))
    calibrated = calibrator(both_classes(at_least_float32(seg_logits)))[:, 1:]
    return Prediction(calibrated, calibrated > threshold)


def calibrate(sample: SegDataSample, calibrators: Sequence[ProbabilityCalibrator], threshold: float | None) -> None:
    """Calibrate the `seg_logits` of a prediction, and predict the classes anew from them.

    Args:
        sample: with its prediction.
        calibrators: none; one; or one that was fitted to each half of the images, of which the other half's is taken.
        threshold: of the decode head, for C = 1.
    """
    if not calibrators:
        return
    calibrator = calibrators[0] if len(calibrators) == 1 else calibrators[1 - half_of(image_key(sample))]
    after = calibrated_prediction(sample.seg_logits.data[None], calibrator, threshold)
    set_prediction(sample, after.seg_logits[0], after.classes[0].to(sample.pred_sem_seg.data.dtype))


def calibrate_uncertainty(sample: SegDataSample, calibrator: ScoreCalibrator | None) -> None:
    """Turn the uncertainty of a prediction into the probability that the predicted class is wrong."""
    if calibrator is None:
        return
    classes = sample.pred_sem_seg.data
    sample.pred_uncertainty = PixelData(data=calibrated_uncertainty(sample.pred_uncertainty.data, classes, calibrator))
    if "pred_class_uncertainty" in sample:
        maps = sample.pred_class_uncertainty.data
        sample.pred_class_uncertainty = PixelData(data=calibrated_uncertainty(maps, every_class(maps), calibrator))


def calibrated_uncertainty(maps: Tensor, classes: Tensor, calibrator: ScoreCalibrator) -> Tensor:
    """The probability of an error from the uncertainty `maps` (..., U, H, W) of `classes` (..., 1 or U, H, W)."""
    return calibrator(maps, classes.long().expand_as(maps))


def every_class(maps: Tensor) -> Tensor:
    """The class (C, 1, 1) of each of the maps (..., C, H, W)."""
    return torch.arange(maps.shape[-3], device=maps.device)[:, None, None]


class CalibratedMixin:
    """Adds a calibrator to a segmentor. Without one, nothing of it changes; trainings never look at it."""

    def __init__(self, *args: Any, calibrator: Source | Sequence[Source] | None = None, **kwargs: Any) -> None:
        """
        Args:
            args, kwargs: as the framework's segmentor.
            calibrator: of the probabilities of classes: a file of `tools/fit_calibrator.py`, or what it holds.
        """
        super().__init__(*args, **kwargs)
        self.calibrators = read_calibrators(calibrator, self.out_channels)

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """The framework's predictions, calibrated; maps of uncertainty are those of the prediction before."""
        samples = super().predict(inputs, data_samples)
        head = self.decode_head[-1] if isinstance(self.decode_head, nn.ModuleList) else self.decode_head
        for sample in samples:
            calibrate(sample, self.calibrators, head.threshold)
        return samples


@MODELS.register_module()
class CalibratedEncoderDecoder(CalibratedMixin, EncoderDecoder):
    """`EncoderDecoder` with a calibrator."""


@MODELS.register_module()
class CalibratedCascadeEncoderDecoder(CalibratedMixin, CascadeEncoderDecoder):
    """`CascadeEncoderDecoder` with a calibrator."""
