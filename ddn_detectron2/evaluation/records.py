"""What an evaluation found out about a detector, in the record that all packages share."""

from collections.abc import Sequence

import detectron2

from uncertainty_core import file_sha256
from uncertainty_core.detection import DetectionEvaluation
from uncertainty_core.report import detectors
from uncertainty_core.report.run_record import Data, Picture, Provenance, RunRecord

from .calibration_evaluator import json_file


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
        name, passes, evaluation, pictures: as `detectors.run_record`.
        dataset: what was predicted, by its name in Detectron2's catalogue.
        seed: of the training.
        seconds: that the evaluation took.
    """
    data = Data(dataset, file_sha256(json_file(dataset))[:16], len(evaluation.ground_truth.image_ids))
    provenance = Provenance.of_this_process(seed, data, seconds, detectron2=detectron2.__version__)
    return detectors.run_record(name, passes, evaluation, provenance, pictures)
