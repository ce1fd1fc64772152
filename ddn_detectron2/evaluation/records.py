"""What an evaluation found out about a detector, in the record that all packages share."""

from collections.abc import Sequence

import detectron2

from uncertainty_core import file_sha256
from uncertainty_core.detection import DetectionEvaluation
from uncertainty_core.detection.evaluation import CalibrationAt
from uncertainty_core.report.run_record import Data, Picture, Provenance, Reliability, RunRecord

from .calibration_evaluator import json_file

IOU_THRESHOLD = 0.5  # from which on a detection is a true positive, in all that compares detectors


def calibration_at(evaluation: DetectionEvaluation) -> CalibrationAt:
    """The calibration at the IoU threshold of comparisons."""
    return next(at for at in evaluation.calibration if at.iou_threshold == IOU_THRESHOLD)


def measured(evaluation: DetectionEvaluation) -> dict[str, float]:
    """Every metric by name; AP and AR in percent, calibration in plain values."""
    return evaluation.precision | calibration_at(evaluation).metrics | evaluation.any_overlap.metrics


def run_record(
    name: str,
    passes: int,
    evaluation: DetectionEvaluation,
    dataset: str,
    seed: int | None,
    seconds: float,
    pictures: Sequence[Picture] = (),
) -> RunRecord:
    """The record of one detector.

    Args:
        name: of the predictor.
        passes: of the box head for one image.
        evaluation: of its detections.
        dataset: what was predicted, by its name in Detectron2's catalogue.
        seed: of the training.
        seconds: that the evaluation took.
        pictures: of its detections.
    """
    at = calibration_at(evaluation)
    truth, path = evaluation.ground_truth, json_file(dataset)
    data = Data(dataset, file_sha256(path)[:16], len(truth.image_ids))
    columns = {"AP": evaluation.precision_per_category["AP"], "laece": at.per_category["laece"]}
    return RunRecord(
        name,
        "detection",
        passes,
        measured(evaluation),
        Provenance.of_this_process(seed, data, seconds, detectron2=detectron2.__version__),
        reliability=Reliability.of(at.result),
        pictures=list(pictures),
        per_class={key: dict(zip(truth.category_names, values, strict=True)) for key, values in columns.items()},
    )
