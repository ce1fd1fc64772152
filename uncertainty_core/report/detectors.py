"""The record of a detector."""

from collections.abc import Sequence

from ..catalog import DETECTION
from ..detection.evaluation import DetectionEvaluation
from ..detection.report import calibration_at, measured
from ..intervals.detected import DetectedImages
from .run_record import Picture, Provenance, Reliability, RunRecord


def run_record(
    name: str,
    passes: int,
    evaluation: DetectionEvaluation,
    provenance: Provenance,
    pictures: Sequence[Picture] = (),
) -> RunRecord:
    """The record of one detector, that a page compares with those of others; `images_of` goes with it.

    Args:
        name: of the predictor.
        passes: of the box head for one image.
        evaluation: of its detections.
        provenance: how to measure the same again.
        pictures: of its detections.
    """
    at, names = calibration_at(evaluation), evaluation.ground_truth.category_names
    columns = {"AP": evaluation.precision_per_category["AP"], "laece": at.per_category["laece"]}
    return RunRecord(
        name,
        DETECTION,
        passes,
        measured(evaluation),
        provenance,
        reliability=Reliability.of(at.result),
        pictures=list(pictures),
        per_class={key: dict(zip(names, values, strict=True)) for key, values in columns.items()},
    )


def images_of(evaluation: DetectionEvaluation) -> DetectedImages:
    """What is kept of its images, at the IoU threshold of the record."""
    return DetectedImages.of(evaluation, calibration_at(evaluation).iou_threshold)
