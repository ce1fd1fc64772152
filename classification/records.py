"""What `evaluate` measured, on disk.

<folder>/evaluation/<row>/seed-<k>.json  everything about a row, and the predictions beside it
<folder>/runs/<row>/seed-<k>/run.json    what all packages record of a predictor, for the report

Shapes: N images, C classes, K bins.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torchvision
from safetensors.torch import save_file
from torch import Tensor

from uncertainty_core import BinStatistics, CalibrationResult, bin_statistics, ece, ranking
from uncertainty_core.io.files import write_atomically
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.report.paper_rows import source_of
from uncertainty_core.report.run_record import (
    FILE,
    Data,
    PaperRow,
    Provenance,
    Reliability,
    RunRecord,
    risk_coverage_curve,
)

from .checkpoint import CheckpointError
from .data import ImageSet

# what the report shows of the calibration and of the other metrics of a row
CALIBRATION = ("accuracy", "ece", "msce", "mce", "mce_squared", "nll_true", "nll_pred", "entropy", "brier")
OTHERS = ("train_accuracy", "val_accuracy", "risk", "aurc", "mupe")


def write_record(folder: Path, record: dict[str, Any], probabilities: Tensor) -> None:
    """Write a row's record, and its predictions (N, C), under the experiment's `folder`."""
    place = folder / "evaluation" / record["row"]
    place.mkdir(parents=True, exist_ok=True)
    save_file({"probabilities": probabilities.cpu()}, place / f"seed-{record['seed']}.safetensors")
    write_atomically(place / f"seed-{record['seed']}.json", strict_json(record).encode())


def read_evaluation(folder: Path) -> list[dict[str, Any]]:
    """All records under an experiment's `folder`; a number that JSON lacks is a string that `float` reads."""
    found = []
    for path in sorted((folder / "evaluation").glob("*/seed-*.json")):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}): run evaluate again") from None
    return found


def run_folder(folder: Path, row: str, seed: int) -> Path:
    """Where a row's `run.json` lies, under the experiment's `folder`."""
    return folder / "runs" / row / f"seed-{seed}"


def run_record(
    record: Mapping[str, Any], probabilities: Tensor, test: ImageSet, seconds: float, paper: Mapping[str, float]
) -> RunRecord:
    """What all packages record of a predictor, from a row's record.

    Args:
        record: of the row, as `evaluate` writes it.
        probabilities: (N, C).
        test: the N images.
        seconds: that predicting them took.
        paper: metric -> what a paper prints of the same row, perhaps nothing.
    """
    calibration = CalibrationResult.from_json(json.dumps(record["calibration"]))
    metrics = {key: calibration.metrics[key] for key in CALIBRATION}
    metrics |= {key: record["metrics"][key] for key in OTHERS if key in record["metrics"]}
    if record["row"] == "baseline":
        del metrics["mupe"]  # its distance from itself
    confidence, prediction = probabilities.max(1)
    correct = prediction == test.labels
    data = Data(test.name, test.fingerprint, len(test))
    return RunRecord(
        name=record["row"],
        task="classification",
        passes=record["passes"],
        metrics=metrics,
        provenance=Provenance.of_this_process(record["seed"], data, seconds, torchvision=torchvision.__version__),
        reliability=Reliability.of(calibration),
        curves={"risk_coverage": risk_coverage_curve(ranking(1 - confidence, ~correct))},
        per_class=_per_class(
            bin_statistics(
                confidence, correct, calibration.num_bins, calibration.edges, test.labels, len(test.classes)
            ),
            test.classes,
        ),
        paper_row=paper_row(paper),
    )


def paper_row(metrics: Mapping[str, float]) -> PaperRow | None:
    """What a configuration says that its paper prints of a row, if anything."""
    return PaperRow(source_of(metrics) or "as the configuration has it", dict(metrics)) if metrics else None


def _per_class(bins: BinStatistics, classes: Iterable[str]) -> dict[str, dict[str, float]]:
    """Recall and ECE by class, from bins (C, K) of the images of each; classes without images are left out."""
    held = bins.count.sum(-1) > 0
    names = [name for name, found in zip(classes, held.tolist(), strict=True) if found]
    bins = BinStatistics(bins.count[held], bins.confidence[held], bins.success[held])
    columns = {"recall": bins.success.sum(-1) / bins.count.sum(-1), "ece": ece(bins)}
    return {key: dict(zip(names, values.tolist(), strict=True)) for key, values in columns.items()}


def forget_other_runs(folder: Path, kept: Iterable[Path]) -> None:
    """Remove every `run.json` under the experiment's `folder` but those in the folders `kept`: others are outdated."""
    kept = set(kept)
    for path in (folder / "runs").rglob(FILE):
        if path.parent not in kept:
            path.unlink()
