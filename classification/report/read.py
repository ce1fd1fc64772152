"""What a report is made from, as training and evaluation left it on disk.

Shapes: N test images, C classes.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from uncertainty_core.report.find import Group, arranged
from uncertainty_core.report.run_record import FILE, RunRecord
from uncertainty_core.roles import BASELINE, calibrated_name, ensemble_name, passes_name

from ..checkpoint import CheckpointError, is_finished, network_sha256
from ..config import Config
from ..records import PREDICTIONS, run_folder, settings_of

# "train" and "test" -> accuracy after each epoch
Curves = Mapping[str, Sequence[float]]


def expected_rows(config: Config) -> Iterator[tuple[str, int]]:
    """(row, seed) of all that `evaluate` measures without calibrators, in the same order."""
    evaluation, seeds = config.evaluation, config.teacher.seeds
    yield BASELINE.name, seeds[0]
    yield from ((passes_name(m), seed) for m in evaluation.mc_samples for seed in range(evaluation.repetitions))
    if len(seeds) > 1:
        yield ensemble_name(len(seeds)), 0
    for student, run in config.students.items():
        for seed in run.seeds:
            yield student, seed
            if evaluation.mc_students:
                yield f"{passes_name(evaluation.mc_students)} {student}", seed


def _rows(config: Config) -> Iterator[tuple[str, int, bool]]:
    """(row, seed, whether it is another one with a calibrator) of all that `evaluate` may have measured."""
    for row, seed in expected_rows(config):
        yield row, seed, False
        yield from ((calibrated_name(row, method), seed, True) for method in config.evaluation.calibrators)


def evaluated(config: Config) -> Group:
    """What `evaluate` wrote for this configuration; what it left behind for others is passed over.

    What a paper prints of the rows is as the configuration has it now.
    """
    sha256 = cache(network_sha256)
    records: dict[Path, RunRecord] = {}
    for row, seed, is_calibrated in _rows(config):
        folder = run_folder(config.folder, row, seed)
        if not (folder / FILE).exists():
            if is_calibrated:  # there were no validation images, or it takes several passes
                continue
            raise CheckpointError(
                f"{config.folder / 'runs'} holds nothing about {row}, seed {seed}: run evaluate first"
            )
        record = RunRecord.read(folder)
        _check_settings(record, config)
        for name, measured in record.details["networks"].items():
            place = config.folder / name
            if not is_finished(place) or sha256(place) != measured:
                raise CheckpointError(
                    f"{place} holds another network than the one {folder} tells of: run evaluate again"
                )
        records[folder] = replace(record, paper_row=config.paper_rows.get(row))
    return Group.of(arranged(records))


def _check_settings(record: RunRecord, config: Config) -> None:
    """Raise CheckpointError unless `evaluate` was asked for the same as `config` asks for."""
    measured = record.details["settings"]
    for key, value in settings_of(config.evaluation).items():
        if measured.get(key) != value:
            raise CheckpointError(
                f"{config.folder / 'runs'} was made with another evaluation.{key}: run evaluate again"
            )


def predictions(folder: Path, num_images: int) -> Tensor:
    """Probabilities (N, C) that `evaluate` stored in the folder of a row, of so many images."""
    path = folder / PREDICTIONS
    try:
        probabilities = load_file(path)["probabilities"]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): run evaluate again") from None
    if len(probabilities) != num_images:
        raise CheckpointError(
            f"{path} holds predictions for {len(probabilities)} images, but there are {num_images}: run evaluate again"
        )
    return probabilities


def logged_accuracies(folder: Path) -> Curves:
    """Accuracy after each epoch of the network in `folder`; nothing where there is no log."""
    path = folder / "log.csv"
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {"train": "train_accuracy", "test": "accuracy"}
    return {kind: [float(row[column]) for row in rows] for kind, column in columns.items()}
