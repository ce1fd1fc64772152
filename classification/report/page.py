"""The page as a whole.

Shapes: N test images, C classes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from torch import Tensor

from ..config import Config
from ..data import ImageSet
from ..experiment import Experiment
from . import results
from .introduction import configuration, in_words, networks
from .markup import document
from .read import Curves, Records, evaluated, logged_accuracies, predictions


def write_report(experiment: Experiment) -> Path:
    """Write `<folder>/report.html`, and its two main pictures beside it, and say where they are."""
    config, test = experiment.config, experiment.test_set
    records = evaluated(config)
    probabilities = {row: predictions(config, row, found[0]["seed"], len(test)) for row, found in records.items()}
    logs = {
        student or "teacher": [
            logged_accuracies(experiment.folder_of(student, seed)) for seed in experiment.run_of(student).seeds
        ]
        for student in (None, *config.students)
    }
    pictures = results.main_pictures(config, records, probabilities, test)
    for name, (figure, *_) in zip(("reliability", "risk_coverage"), pictures, strict=True):
        figure.savefig(config.folder / f"{name}.png")
    path = config.folder / "report.html"
    path.write_text(build_report(config, records, probabilities, logs, test), encoding="utf-8")
    print(f"Look at {path}, one page with everything,")
    print(f"        {config.folder}/reliability.png: what is below the diagonal is overconfident,")
    print(f"        {config.folder}/risk_coverage.png: the lower, the better the mistakes are known in advance.")
    return path


def build_report(
    config: Config,
    records: Records,
    probabilities: Mapping[str, Tensor],
    logs: Mapping[str, Sequence[Curves]],
    test: ImageSet,
) -> str:
    """The page; sections for which there is nothing to show are left out.

    Args:
        config: of the experiment.
        records: what `evaluate` measured.
        probabilities: (N, C) of the first seed of each row.
        logs: accuracies of "teacher" and each student, for each seed, after each epoch.
        test: the N test images.
    """
    with matplotlib.rc_context({"text.parse_math": False}):  # a name may hold a dollar
        sections = {
            "Networks": networks(config, test),
            "Results": results.main_table(config, records),
            "Calibration and risk": results.calibration(config, records, probabilities, test),
            "Training": results.training(config, records, logs),
            "Out-of-distribution images": results.outliers(records),
            "Corrupted images": results.corruptions(config, records),
            "Where student and baseline differ": results.differences(config, probabilities, test),
            "Compression": results.compression(config, records, test),
            "Configuration": configuration(config),
        }
    return document(config.name, in_words(config, test), sections)
