"""What an evaluation found out about a detector, in the record that all packages share."""

from collections.abc import Sequence

import detectron2

from uncertainty_core import file_sha256
from uncertainty_core.detection import DetectionEvaluation
from uncertainty_core.report.run_record import Data, Picture, Provenance, Reliability, RunRecord

from .calibration_evaluator import json_file

PRECISION = ("AP", "AP50", "AP75", "AR100")
CALIBRATION = ("ece", "msce", "mce_squared", "nll_pred", "nll", "brier", "d_ece", "laece", "laace", "lrp")


def run_record(
    name: str,
    passes: int,
    evaluation: DetectionEvaluation,
    dataset: str,
    seed: int | None,
    seconds: float,
    pictures: Sequence[Picture] = (),
    iou_threshold: float = 0.5,
) -> RunRecord:
    """The record of one detector, its calibration at one IoU threshold.

    Args:
        name: of the predictor.
        passes: of the box head for one image.
        evaluation: of its detections.
        dataset: what was predicted, by its name in Detectron2's catalogue.
        seed: of the training.
        seconds: that the evaluation took.
        pictures: of its detections.
        iou_threshold: from which on a detection is a true positive; one of the evaluation's.
    """
    at = next(at for at in evaluation.calibration if at.iou_threshold == iou_threshold)
    truth, path = evaluation.ground_truth, json_file(dataset)
    data = Data(dataset, file_sha256(path)[:16], len(truth.image_ids))
    metrics = {key: evaluation.precision[key] for key in PRECISION} | {key: at.metrics[key] for key in CALIBRATION}
    columns = {"AP": evaluation.precision_per_category["AP"], "laece": at.per_category["laece"]}
    return RunRecord(
        name,
        "detection",
        passes,
        metrics,
        Provenance.of_this_process(seed, data, seconds, detectron2=detectron2.__version__),
        reliability=Reliability.of(at.result),
        pictures=list(pictures),
        per_class={key: dict(zip(truth.category_names, values, strict=True)) for key, values in columns.items()},
    )
