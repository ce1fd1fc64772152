"""What is measured of each predictor on the test images, and on images that it should not be sure of.

Shapes: N images, C classes, M draws.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uncertainty_core import CalibrationMetric, CalibrationResult, aurc, mupe, ranking
from uncertainty_core.cli import echo
from uncertainty_core.functional.selective import detection_areas
from uncertainty_core.recalibration import PROBABILITY_METHODS, ProbabilityCalibrator, save
from uncertainty_core.recalibration.recipes import FILE as CALIBRATOR
from uncertainty_core.report.find import arranged
from uncertainty_core.report.markdown import comparison
from uncertainty_core.report.run_record import RunRecord
from uncertainty_core.roles import BASELINE, calibrated_name, ensemble_name, passes_name

from .checkpoint import network_sha256
from .config import Evaluation
from .corruptions import STRENGTHS, corrupt
from .data import ImageSet, adapt
from .engine import predict
from .experiment import Experiment, on_device
from .records import (
    forget_other_runs,
    images_of,
    measured_before,
    run_folder,
    run_record,
    settings_of,
    write_run,
)
from .sampling import Ensemble, mc_outputs


@dataclass(frozen=True)
class Predictor:
    """A row of the report: `probabilities(images, ids)` gives (N, C) at the cost of so many forward passes.

    Its confidence is compared with that of its `twin`, a row of the teacher; if there is no such row, the baseline's.
    """

    row: str
    seed: int
    passes: int
    networks: tuple[tuple[str | None, int], ...]  # whose they are: student (None for the teacher) and seed
    probabilities: Callable[[Tensor, list[int | str]], Tensor]
    twin: str = "baseline"
    calibrator: ProbabilityCalibrator | None = None


def predictors(experiment: Experiment) -> Iterator[Predictor]:
    """All rows of an experiment in the order of the report: each predictor, and behind it the same with calibrators."""
    for predictor in plain_predictors(experiment):
        yield predictor
        # of others than these, validation images would take more passes than all else together
        if predictor.passes == 1 and len(experiment.validation_set):
            for method in experiment.config.evaluation.calibrators:
                yield calibrated(experiment, predictor, method)


def calibrated(experiment: Experiment, predictor: Predictor, method: str) -> Predictor:
    """The predictor with a calibrator that is fitted to the validation images."""
    held_out, row = experiment.validation_set, calibrated_name(predictor.row, method)
    calibrator = PROBABILITY_METHODS[method](_predict(experiment, predictor, held_out, row), held_out.labels)

    def probabilities(images: Tensor, ids: list[int | str]) -> Tensor:
        return calibrator(predictor.probabilities(images, ids))

    return replace(predictor, row=row, probabilities=probabilities, calibrator=calibrator)


def plain_predictors(experiment: Experiment) -> Iterator[Predictor]:
    """Baseline, Monte-Carlo dropout, ensemble and students of an experiment."""
    config = experiment.config
    evaluation = config.evaluation
    sample = partial(_monte_carlo, evaluation)
    teacher, seeds = experiment.baseline, config.teacher.seeds
    first = ((None, seeds[0]),)
    ensemble_row = ensemble_name(len(seeds))
    yield Predictor(BASELINE.name, seeds[0], 1, first, _deterministic(teacher))
    for num_samples in evaluation.mc_samples:
        for seed in range(evaluation.repetitions):
            yield Predictor(passes_name(num_samples), seed, num_samples, first, sample(teacher, num_samples, seed))
    if len(seeds) > 1:
        networks = tuple((None, seed) for seed in seeds)
        yield Predictor(ensemble_row, 0, len(seeds), networks, _deterministic(Ensemble(experiment.members)))
    for student, run in config.students.items():
        for seed in run.seeds:
            model = experiment.trained(student, seed)
            twin = ensemble_row if config.teacher.ensemble else BASELINE.name
            yield Predictor(student, seed, 1, ((student, seed),), _deterministic(model), twin)
            if num_samples := evaluation.mc_students:
                twin = passes_name(num_samples)
                sampled = sample(model, num_samples, seed)
                yield Predictor(f"{twin} {student}", seed, num_samples, ((student, seed),), sampled, twin)


def _deterministic(model: nn.Module) -> Callable[[Tensor, list], Tensor]:
    return lambda images, _: model(images).softmax(1)


def _monte_carlo(
    evaluation: Evaluation, model: nn.Module, num_samples: int, seed: int
) -> Callable[[Tensor, list], Tensor]:
    return lambda images, ids: mc_outputs(
        model,
        images,
        num_samples,
        transform=lambda logits: logits.softmax(1),
        seed=seed,
        keys=ids,
        precision=evaluation.precision,
        channels_last=evaluation.channels_last,
    )


def evaluate(experiment: Experiment) -> None:
    """Measure every predictor and write its record, see `records`; what was measured before is not measured again.

    With `experiment.overwrite` all is.
    """
    config, test, folder = experiment.config, experiment.test_set, experiment.config.folder
    outliers = {name: _outliers(experiment, name) for name in config.evaluation.ood}
    networks, images = _networks(experiment), _images(experiment, outliers)
    confidences: dict[str, Tensor] = {}  # of each row, with the first of its seeds
    records: dict[Path, RunRecord] = {}
    measured = list(predictors(experiment))  # all of them first: a missing network must not leave half a table
    experiment.step(f"evaluate: {len(measured)} predictors on {len(test)} images")
    before = 0
    for predictor in measured:
        name = predictor.row if predictor.seed == 0 else f"{predictor.row}, seed {predictor.seed}"
        place = run_folder(folder, predictor.row, predictor.seed)
        twin = predictor.twin if predictor.twin in confidences else "baseline"  # which come before all that have twins
        inputs = {"networks": networks(predictor), "compared_with": networks(measured[0]), "images": images}
        inputs |= {"twin": twin, "passes": predictor.passes, "settings": settings_of(config.evaluation)}
        found = None if experiment.overwrite else measured_before(place, inputs)
        if found is not None:
            record, probabilities = found
            probabilities, before = probabilities.to(experiment.device), before + 1
        else:
            twin = confidences.get(twin)
            record, probabilities = _measured(experiment, predictor, name, outliers, twin, inputs)
            write_run(place, record, probabilities, images_of(probabilities, test, config.evaluation, twin))
            if predictor.calibrator is not None:
                save(predictor.calibrator, place / CALIBRATOR)
        confidences.setdefault(predictor.row, probabilities.amax(1))
        records[place] = record
    forget_other_runs(folder, records)
    if before:
        echo(f"measured before: {before} of {len(measured)}")
    echo(f"\n{comparison(arranged(records))}\n")


def _networks(experiment: Experiment) -> Callable[[Predictor], dict[str, str]]:
    """Looks up which networks a predictor consists of: SHA-256 by path."""
    sha256 = cache(network_sha256)

    def networks(predictor: Predictor) -> dict[str, str]:
        places = [experiment.folder_of(*network) for network in predictor.networks]
        return {place.relative_to(experiment.config.folder).as_posix(): sha256(place) for place in places}

    return networks


def _images(experiment: Experiment, outliers: dict[str, ImageSet]) -> dict[str, str]:
    """Fingerprints of all image sets that something is measured on."""
    sets = {"train": experiment.train_set, "val": experiment.validation_set, "test": experiment.test_set}
    return {name: images.fingerprint for name, images in (sets | {f"ood {n}": i for n, i in outliers.items()}).items()}


def _measured(
    experiment: Experiment,
    predictor: Predictor,
    name: str,
    outliers: dict[str, ImageSet],
    twin: Tensor | None,
    inputs: dict[str, Any],
) -> tuple[RunRecord, Tensor]:
    """The record of a predictor and its probabilities (N, C); `twin` (N) are the confidences of its twin."""
    config, test = experiment.config, experiment.test_set
    start = time.perf_counter()
    probabilities = _predict(experiment, predictor, test, name)
    seconds = time.perf_counter() - start
    metrics = error_metrics(probabilities, test.labels)
    if twin is not None:
        metrics["mupe"] = mupe(twin, probabilities.amax(1)).item()
    if predictor.passes == 1:  # of the others it would take more passes than all else together
        metrics |= _other_accuracies(experiment, predictor)
    details = {
        "networks": inputs["networks"],
        "inputs": inputs,
        "ood": {
            name: outlier_metrics(probabilities, _predict(experiment, predictor, images, f"{name} {predictor.row}"))
            for name, images in outliers.items()
        },
        "corruptions": _corruptions(experiment, predictor),
    }
    calibration = _calibration(experiment, probabilities, test.labels)
    who = predictor.row, predictor.seed, predictor.passes
    return run_record(config, *who, calibration, metrics, details, probabilities, test, seconds), probabilities


def _predict(experiment: Experiment, predictor: Predictor, images: ImageSet, name: str) -> Tensor:
    return predict(predictor.probabilities, images, *experiment.statistics, title=name)


def _other_accuracies(experiment: Experiment, predictor: Predictor) -> dict[str, float]:
    """Accuracy on the training images, and on the validation images if there are any."""
    accuracies = {}
    for split, images in (("train", experiment.train_set), ("val", experiment.validation_set)):
        if len(images):
            picked = _predict(experiment, predictor, images, f"{predictor.row}, {split}").argmax(1)
            accuracies[f"{split}_accuracy"] = (picked == images.labels).double().mean().item()
    return accuracies


def _calibration(experiment: Experiment, probabilities: Tensor, labels: Tensor) -> CalibrationResult:
    evaluation = experiment.config.evaluation
    metric = CalibrationMetric(
        probabilities.shape[1],
        evaluation.num_bins,
        evaluation.edges,
        class_wise=True,
        sync_on_compute=False,  # one process measures while the others wait
    ).to(labels.device)
    metric.update(probabilities, labels)
    return metric.result()


def error_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """How well 1 - confidence foretells errors, exactly: risk, aurc, error_auroc, error_aupr, error_fpr95."""
    confidence, prediction = probabilities.max(1)
    errors = ranking(1 - confidence, prediction != labels)
    metrics = {"risk": (prediction != labels).double().mean(), "aurc": aurc(errors)}
    return {name: value.item() for name, value in (metrics | detection_areas(errors, "error_")).items()}


def outlier_metrics(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """How well 1 - confidence tells images of other things, whose probabilities are `outside`: auroc, aupr, fpr95."""
    uncertainty = 1 - torch.cat((inside.amax(1), outside.amax(1)))
    is_outside = torch.arange(len(uncertainty), device=uncertainty.device) >= len(inside)
    return {name: value.item() for name, value in detection_areas(ranking(uncertainty, is_outside)).items()}


def _outliers(experiment: Experiment, name: str) -> ImageSet:
    _, channels, size, _ = experiment.test_set.images.shape
    return on_device(adapt(experiment.load("test", name), channels, size), experiment.device)


def _corruptions(experiment: Experiment, predictor: Predictor) -> dict[str, list[dict[str, float]]]:
    """For each kind the metrics at each strength."""
    measured: dict[str, list[dict[str, float]]] = {}
    for kind in experiment.config.evaluation.corruptions:
        measured[kind] = []
        for strength in range(1, len(STRENGTHS[kind]) + 1):
            test = experiment.test_set
            damaged = corrupt(test.images.cpu(), kind, strength, seed=0).to(test.images.device)
            images = ImageSet(damaged, test.labels, test.classes, test.ids, test.name)
            probabilities = _predict(experiment, predictor, images, f"{kind} {strength} {predictor.row}")
            measured[kind].append(_calibration(experiment, probabilities, images.labels).metrics)
    return measured
