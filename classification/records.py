"""What `evaluate` measured, on disk: <folder>/runs/<row>/seed-<k>/ holds a run.json and the predictions beside it.

Shapes: N images, C classes, K bins.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from uncertainty_core import BinStatistics, CalibrationResult, bin_statistics, ece, ranking
from uncertainty_core.catalog import CLASSIFICATION
from uncertainty_core.errors import UserError
from uncertainty_core.functional.scores import sample_scores
from uncertainty_core.intervals.classified import ClassifiedImages
from uncertainty_core.io.strict_json import strict
from uncertainty_core.report.run_record import (
    FILE,
    Data,
    Provenance,
    Reliability,
    RunRecord,
    Training,
    risk_coverage_curve,
)

from .checkpoint import write_tensors
from .config import Config, Evaluation
from .data import ImageSet

PREDICTIONS = "probabilities.safetensors"
CHOOSE_ROWS = {
    "mc_samples",
    "mc_students",
    "repetitions",
    "calibrators",
}  # decide which rows there are, not what they are


def run_folder(folder: Path, row: str, seed: int) -> Path:
    """Where a row is, under the experiment's `folder`."""
    return folder / "runs" / row / f"seed-{seed}"


def write_run(folder: Path, record: RunRecord, probabilities: Tensor, images: ClassifiedImages) -> None:
    """Write a row and its predictions (N, C) into a `folder` of its own; with a record there, all is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    write_tensors(folder / PREDICTIONS, {"probabilities": probabilities})
    record.write(folder, images)


def measured_before(folder: Path, inputs: Mapping[str, Any]) -> tuple[RunRecord, Tensor] | None:
    """The row in `folder` and its predictions (N, C), if they were made of the same `inputs`; None otherwise."""
    try:
        record = RunRecord.read(folder)
        if record.details.get("inputs") != inputs:
            return None
        return record, load_file(folder / PREDICTIONS)["probabilities"]
    except (UserError, OSError, SafetensorError):  # absent, damaged or of another version
        return None


def settings_of(evaluation: Evaluation) -> dict[str, Any]:
    """All that decides what a row's numbers are, as JSON has it."""
    return {key: value for key, value in strict(asdict(evaluation)).items() if key not in CHOOSE_ROWS}


def run_record(
    config: Config,
    row: str,
    seed: int,
    passes: int,
    calibration: CalibrationResult,
    metrics: Mapping[str, float],
    details: Mapping[str, Any],
    probabilities: Tensor,
    test: ImageSet,
    seconds: float,
) -> RunRecord:
    """The record of a row.

    Args:
        config: of the experiment.
        row, seed, passes: of the predictor.
        calibration: of its predictions, whose metrics are recorded, too.
        metrics: all others by name.
        details: "networks" (path -> SHA-256), "inputs" (all that decides the numbers), "ood" (data set -> metrics),
            "corruptions" (kind -> metrics by strength).
        probabilities: (N, C).
        test: the N images.
        seconds: that predicting them took.
    """
    confidence, prediction = probabilities.max(1)
    correct = prediction == test.labels
    per_class = bin_statistics(
        confidence, correct, calibration.num_bins, calibration.edges, test.labels, len(test.classes)
    )
    data = Data(test.name, test.fingerprint, len(test))
    networks = [config.folder / name for name in details["networks"]]
    return RunRecord(
        name=config.row_name(row),
        task=CLASSIFICATION,
        passes=passes,
        metrics={**calibration.metrics, **metrics},
        provenance=Provenance.of_this_process(seed, data, seconds, torchvision=torchvision.__version__),
        reliability=Reliability.of(calibration),
        curves={"risk_coverage": risk_coverage_curve(ranking(1 - confidence, ~correct))},
        per_class=_per_class(per_class, test.classes),
        paper_row=config.paper_rows.get(row),
        training=Training.of(networks[0]) if networks else None,
        details={"settings": settings_of(config.evaluation), **details},
    )


def _per_class(bins: BinStatistics, classes: Iterable[str]) -> dict[str, dict[str, float]]:
    """Recall and ECE by class, from bins (C, K) of the images of each; classes without images are left out."""
    held = bins.count.sum(-1) > 0
    names = [name for name, found in zip(classes, held.tolist(), strict=True) if found]
    bins = BinStatistics(bins.count[held], bins.confidence[held], bins.success[held])
    columns = {"recall": bins.success.sum(-1) / bins.count.sum(-1), "ece": ece(bins)}
    return {key: dict(zip(names, values.tolist(), strict=True)) for key, values in columns.items()}


def images_of(
    probabilities: Tensor, test: ImageSet, evaluation: Evaluation, twin: Tensor | None = None
) -> ClassifiedImages:
    """What is kept of each of the N images for intervals.

    Args:
        probabilities: (N, C).
        test: the images.
        evaluation: its settings.
        twin: the confidences (N,) that they are compared with.
    """
    scores = sample_scores(probabilities, test.labels)
    means = {name: getattr(scores, name) for name in ("brier", "nll_true", "nll_pred", "entropy")}
    if twin is not None:
        means["mupe"] = (twin - scores.confidence).square()
    return ClassifiedImages(
        ids=[str(image_id) for image_id in test.ids],
        confidence=scores.confidence.cpu().numpy(),
        success=scores.success.cpu().numpy(),
        scores={name: values.cpu().numpy() for name, values in means.items()},
        num_bins=evaluation.num_bins,
        edges=evaluation.edges,
    )


def forget_other_runs(folder: Path, kept: Iterable[Path]) -> None:
    """Remove every `run.json` under the experiment's `folder` but those in the folders `kept`: others are outdated."""
    kept = set(kept)
    for path in (folder / "runs").rglob(FILE):
        if path.parent not in kept:
            path.unlink()
