"""What a comparison of predictors on the same images found: which is the best, and a sentence for each student."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..catalog import CLASSIFICATION, DETECTION, PERCENT, SEGMENTATION, Metric, metric
from ..roles import BASELINE, OTHER, STUDENT, is_calibrated, plain_name, predictor_name, role_of
from .comparing import Resampled, difference

# of each task an error of the confidence, an accuracy, and what calibrators are compared in
_COMPARED = {
    CLASSIFICATION: ("ece", "accuracy", "brier"),
    DETECTION: ("msce", "AP", "laece"),
    SEGMENTATION: ("ece", "mIoU", "brier"),
}


@dataclass(frozen=True)
class MeasuredRow:
    """A predictor: its forward passes for one image, and its metrics over all seeds."""

    passes: int
    metrics: Resampled


def places(column: Metric, rows: Mapping[str, MeasuredRow]) -> dict[str, int]:
    """1 for the best and 2 for the second-best, where the next one is known to be worse, and prints differently.

    Rows with one pass compete with each other alone, and so do those with several.
    """
    marked: dict[str, int] = {}
    for several in (False, True):
        group = {name: row.metrics for name, row in rows.items() if (row.passes > 1) == several}
        marked |= _places(column, {name: metrics for name, metrics in group.items() if column.key in metrics.values})
    return marked


def _places(column: Metric, rows: Mapping[str, Resampled]) -> dict[str, int]:
    if column.better is None:
        return {}
    found = sorted(rows, key=lambda name: rows[name].values[column.key], reverse=column.better == "higher")
    marked: dict[str, int] = {}
    for ours, theirs in pairwise(found[:3]):
        printed = {column.text(rows[name].values[column.key]) for name in (ours, theirs)}
        if len(printed) == 1 or not difference(rows[ours], rows[theirs], column.key).is_known:
            break
        marked[ours] = len(marked) + 1
    return marked


def findings(task: str, rows: Mapping[str, MeasuredRow]) -> list[str]:
    """A sentence for each student with one pass: against the baseline, and against the best calibrator of that."""
    error, accuracy, calibration = _COMPARED[task]
    one_pass = {name: row.metrics for name, row in rows.items() if row.passes == 1}
    students = [name for name in one_pass if role_of(name) in (STUDENT, OTHER) and name == predictor_name(name)]
    calibrated = [
        name
        for name, row in one_pass.items()
        if plain_name(name) == BASELINE.name and is_calibrated(name) and calibration in row.values
    ]
    sentences = []
    for name in students:
        ours, parts = one_pass[name], []
        if BASELINE.name in one_pass:
            changes = _changes(ours, one_pass[BASELINE.name], error, accuracy)
            parts += [f"against {BASELINE.name}, both one pass: {changes}"] if changes else []
        if calibrated:
            best = min(calibrated, key=lambda other: one_pass[other].values[calibration])
            changes = _changes(ours, one_pass[best], calibration)
            parts += [f"against the best calibrator ({best}): {changes}"] if changes else []
        if parts:
            sentences.append(f"{name} {'; '.join(parts)}.")
    return sentences


def _changes(ours: Resampled, theirs: Resampled, *keys: str) -> str:
    return ", ".join(_change(ours, theirs, metric(key)) for key in keys if key in ours.values and key in theirs.values)


def _change(ours: Resampled, theirs: Resampled, column: Metric) -> str:
    """Of an error in percent of theirs; of what is printed in percent already in points of it."""
    found = difference(ours, theirs, column.key)
    if column.unit == PERCENT:
        one, low, high = (column.factor * v for v in (found.absolute, *found.absolute_interval))
        return f"{column.label} {one:+.1f} [{low:+.1f}, {high:+.1f}]"
    one, low, high = (100 * value for value in (found.relative, *found.relative_interval))
    return f"{column.label} {one:+.0f} % [{low:+.0f}, {high:+.0f}]"
