"""The page as a whole.

Shapes: N test images, C classes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from torch import Tensor

from uncertainty_core.cli import echo
from uncertainty_core.io.files import write_png, write_text
from uncertainty_core.report import sections
from uncertainty_core.report.find import Group
from uncertainty_core.report.markdown import findings
from uncertainty_core.report.markup import document
from uncertainty_core.roles import BASELINE, looks

from ..config import Config
from ..data import ImageSet
from ..experiment import Experiment
from . import results
from .introduction import configuration, in_words, networks
from .markup import style
from .read import Curves, evaluated, logged_accuracies, predictions


def write_report(experiment: Experiment) -> Path:
    """Write `<folder>/report.html`, and its two main pictures beside it, and say where they are."""
    config, test = experiment.config, experiment.test_set
    group = evaluated(config)
    experiment.step("report")
    probabilities = {row: predictions(runs[0].folder, len(test)) for row, runs in group.rows.items()}
    logs = {
        BASELINE.name if student is None else config.student_rows[student]: [
            logged_accuracies(experiment.folder_of(student, seed)) for seed in experiment.run_of(student).seeds
        ]
        for student in (None, *config.students)
    }
    for name, figure in results.main_pictures(config, group.rows, probabilities, test).items():
        write_png(config.folder / f"{name}.png", figure)
    path = config.folder / "report.html"
    write_text(path, build_report(config, group, probabilities, logs, test))
    echo(f"Look at {path}, one page with everything,")
    echo(f"        {config.folder}/reliability.png: what is below the diagonal is overconfident,")
    echo(f"        {config.folder}/risk_coverage.png: the lower, the better the mistakes are known in advance.")
    return path


def build_report(
    config: Config,
    group: Group,
    probabilities: Mapping[str, Tensor],
    logs: Mapping[str, Sequence[Curves]],
    test: ImageSet,
) -> str:
    """The page; sections for which there is nothing to show are left out.

    Args:
        config: of the experiment.
        group: what `evaluate` measured.
        probabilities: (N, C) of the first seed of each row.
        logs: accuracies of the networks of "baseline" and each student's row, for each seed, after each epoch.
        test: the N test images.
    """
    rows = group.rows
    with matplotlib.rc_context({"text.parse_math": False}):  # a name may hold a dollar
        content = {
            "Networks": networks(config, test),
            "Results": results.main_table(config, group),
            "Calibration and risk": sections.charts(rows, sections.styles(rows)),
            "Classes": sections.classes(rows),
            "Training": results.training(rows, logs),
            "Out-of-distribution images": results.outliers(rows),
            "Corrupted images": results.corruptions(config, rows),
            "Where student and baseline differ": results.differences(config, probabilities, test),
            "Compression": results.compression(config, rows, test),
            "Runs": sections.provenance(rows),
            "Metrics": sections.glossary([run.record for runs in rows.values() for run in runs]),
            "Configuration": configuration(config),
        }
    drawn = looks(rows)
    student = next(iter(config.student_rows.values()), BASELINE.name)
    cards = style(drawn[BASELINE.name].colour, drawn[student].colour)
    return document(config.name, findings({"": group}), in_words(config, test), {"": content}, cards)
