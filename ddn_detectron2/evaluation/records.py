"""How a detector was evaluated, for the record that all packages share."""

from pathlib import Path

import detectron2

from uncertainty_core import file_sha256
from uncertainty_core.cli.flags import OWN
from uncertainty_core.detection import DetectionEvaluation
from uncertainty_core.report.run_record import Data, Provenance

from .calibration_evaluator import json_file


def provenance(evaluation: DetectionEvaluation, dataset: str, seed: int | None, seconds: float) -> Provenance:
    """How to measure the same again.

    Args:
        evaluation: of the detector's detections.
        dataset: what was predicted, by its name in Detectron2's catalogue.
        seed: of the training.
        seconds: that the evaluation took.
    """
    path = Path(json_file(dataset))
    name = f"{path.parent.name}/{path.stem}" if dataset.startswith(OWN) else dataset
    data = Data(name, file_sha256(path)[:16], len(evaluation.ground_truth.image_ids))
    return Provenance.of_this_process(seed, data, seconds, detectron2=detectron2.__version__)
