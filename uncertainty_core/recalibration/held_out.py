"""What a calibrator does to the detections of images that it was not fitted to."""

from collections.abc import Hashable, Sequence

import numpy as np

from ..catalog import metric
from ..detection.coco_format import Detections, GroundTruth
from ..detection.evaluation import evaluate, match_images
from ..detection.settings import Settings
from ..intervals.comparing import Resampled, difference, resample
from ..intervals.detected import DetectedImages
from ..intervals.resampling import NUM_RESAMPLES, Interval
from ..report.markdown import markdown_table
from ..sampling.mc_dropout import derive_seed
from .detections import calibrated
from .scores import ScoreCalibrator

MEASURED = ("nll", "d_ece", "msce", "laece", "laece0")


def fitted_half(image_ids: Sequence[Hashable]) -> np.ndarray:
    """Which half of the images (I,) a calibrator is fitted to, drawn by their ids; of an odd number the larger part."""
    drawn = np.argsort([derive_seed("fitted half", str(image_id)) for image_id in image_ids], kind="stable")
    chosen = np.ones(len(image_ids), dtype=bool)
    chosen[drawn[: len(image_ids) // 2]] = False
    return chosen


def before_and_after(
    ground_truth: GroundTruth,
    detections: Detections,
    calibrator: ScoreCalibrator,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.05,
) -> str:
    """A table of the number of detections and of MEASURED, before, after, and the difference, with 95 % intervals.

    Args:
        ground_truth, detections: of images that the calibrator was not fitted to.
        calibrator: of scores.
        iou_threshold, score_threshold: see `Settings`.
    """
    settings = Settings((iou_threshold,), score_threshold=score_threshold)
    before, after = (
        _resampled(ground_truth, found, settings) for found in (detections, calibrated(detections, calibrator))
    )
    columns = [metric(name) for name in MEASURED]
    rows = [
        [title, count, *(_cell(column, of.values[column.key], of.interval(column.key)) for column in columns)]
        for title, (count, of) in {"before": before, "after": after}.items()
    ]
    changes = (difference(after[1], before[1], name) for name in MEASURED)
    change = [
        _cell(column, of.absolute, of.absolute_interval, "+") for column, of in zip(columns, changes, strict=True)
    ]
    return markdown_table(["scores", "n", *(column.head for column in columns)], [*rows, ["difference", "", *change]])


def _resampled(ground_truth: GroundTruth, detections: Detections, settings: Settings) -> tuple[str, Resampled]:
    evaluation = evaluate(ground_truth, match_images(ground_truth, detections, settings), settings)
    images = DetectedImages.of(evaluation, settings.iou_thresholds[0])
    # without average precision, which no calibrator of these changes by much, and which takes long
    found = resample(images, measures={images.calibration: NUM_RESAMPLES})
    return str(evaluation.calibration[0].result.num_samples), found


def _cell(column, value: float, ends: Interval, sign: str = "") -> str:
    low, high = (f"{column.factor * end:{sign}.{column.digits}f}" for end in ends)
    return f"{column.factor * value:{sign}.{column.digits}f} [{low}, {high}]"
