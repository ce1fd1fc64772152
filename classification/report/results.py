"""What came out: a section of the page per table or figure of the papers, empty where there is nothing to show.

Shapes: N test images, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.figure import Figure
from torch import Tensor

from uncertainty_core import CalibrationResult, bin_statistics, ranking, risk_coverage
from uncertainty_core.catalog import Metric, in_order
from uncertainty_core.plots import reliability_diagram, risk_coverage_plot
from uncertainty_core.report.find import Group, Rows
from uncertainty_core.report.find import Run as RecordedRun
from uncertainty_core.report.markup import paragraph
from uncertainty_core.report.run_record import RunRecord
from uncertainty_core.report.sections import summary
from uncertainty_core.report.tables import mean_and_deviation, metric_table
from uncertainty_core.roles import BASELINE, drawn_at_first, looks, passes_name

from ..config import Config
from ..data import ImageSet
from ..methods import Method
from .examples import examples
from .figures import Point, compression_figure, corruption_figure, training_figure
from .introduction import describe, listed, parameter_counts
from .markup import figures
from .read import Curves


def main_table(config: Config, group: Group) -> str:
    """Every metric of every predictor (DDN table I, Amara table 1, Rota Bulò table 1)."""
    ours = {run.record.name for runs in group.rows.values() for run in runs}
    return summary(group, {row: paper for row, paper in config.paper_rows.items() if config.row_name(row) not in ours})


def teacher_row(config: Config) -> str:
    """The stochastic teacher: Monte-Carlo dropout with most samples, or the baseline where there is none."""
    samples = config.evaluation.mc_samples
    return passes_name(max(samples)) if samples else BASELINE.name


# --- calibration and risk ----------------------------------------------------------------------------------------


def main_pictures(config: Config, rows: Rows, probabilities: Mapping[str, Tensor], test: ImageSet) -> dict[str, Figure]:
    """Figures "reliability" and "risk_coverage" of the rows that the page's charts begin with."""
    settings, labels = config.evaluation, test.labels.cpu()
    results, curves = {}, {}
    for row in drawn_at_first(rows):
        confidence, prediction = probabilities[row].max(1)
        bins = bin_statistics(confidence, prediction == labels, settings.num_bins, settings.edges)
        results[row] = CalibrationResult(bins, settings.edges)
        curves[row] = risk_coverage(ranking(1 - confidence, prediction != labels))
    return {"reliability": reliability_diagram(results), "risk_coverage": risk_coverage_plot(curves)}


# --- training ----------------------------------------------------------------------------------------------------


def training(rows: Rows, logs: Mapping[str, Sequence[Curves]]) -> str:
    """Accuracy in training and test over epochs (DDN figure 1), where logs are left."""
    shown = drawn_at_first(rows)
    lines = {name: [log for log in seeds if log] for name, seeds in logs.items() if name in shown}
    lines = {name: seeds for name, seeds in lines.items() if seeds}
    if not lines:
        return ""
    said = listed([f"{name} {seeds[0]['test'][-1]:.2%}" for name, seeds in lines.items()])
    caption = (
        "Accuracy after each epoch, on the validation images or, where none are set aside, on the test images; "
        "dashed: on the training images, as they pass by with dropout."
    )
    return figures([(training_figure(lines, looks(rows)), f"Accuracy over epochs, which ends at {said}", caption)])


# --- other images ------------------------------------------------------------------------------------------------


def outliers(rows: Rows) -> str:
    """How well each predictor tells images of other data sets."""
    found = {row: [outlier_measurements(run.record) for run in runs] for row, runs in rows.items()}
    columns = outlier_columns(rows["baseline"][0].record.details["ood"])
    if not columns:
        return ""
    note = (
        "How well a low confidence tells images of other data sets from the test images. FPR95 is the share of test "
        "images that are rejected along with 95% of the others."
    )
    return metric_table(columns, found, "Out-of-distribution images") + paragraph(note, "note")


def outlier_measurements(record: RunRecord) -> dict[str, float]:
    """Metrics of a record by "<data set> <metric>"."""
    ood = record.details["ood"]
    return {f"{name} {key}": float(value) for name, found in ood.items() for key, value in found.items()}


def outlier_columns(ood: Mapping[str, Mapping[str, float]]) -> list[Metric]:
    """The columns of a table of out-of-distribution data sets, from the metrics of each."""
    return [
        replace(found, key=f"{name} {found.key}", group=name)
        for name, metrics in ood.items()
        for found in in_order(metrics)
    ]


def corruptions(config: Config, rows: Rows) -> str:
    """Accuracy and ECE against the strength of each corruption."""
    overlaid = drawn_at_first(rows)
    pictures = []
    for kind in config.evaluation.corruptions:
        accuracy, ece = ({row: _by_strength(rows[row], kind, name) for row in overlaid} for name in ("accuracy", "ece"))
        said = listed([f"{row} {values[-1]:.2%}" for row, values in accuracy.items()])
        pictures.append(
            (
                corruption_figure(accuracy, ece),
                f"Accuracy and ECE under {kind}; at the greatest strength the accuracy is {said}",
                f"{kind.capitalize()} of rising strength; at 0 the test images as they are.",
            )
        )
    return figures(pictures) if pictures else ""


def _by_strength(runs: Sequence[RecordedRun], kind: str, name: str) -> list[float]:
    """Means over the seeds of a row, of the images as they are first."""
    curves = [
        [float(values[name]) for values in (run.record.metrics, *run.record.details["corruptions"][kind])]
        for run in runs
    ]
    return [mean_and_deviation(values)[0] for values in zip(*curves, strict=True)]


# --- students ----------------------------------------------------------------------------------------------------


def differences(config: Config, probabilities: Mapping[str, Tensor], test: ImageSet) -> str:
    """Images on which the first student and the baseline differ (DDN figure 6)."""
    if not config.students:
        return ""
    student = next(iter(config.student_rows.values()))
    return examples(test, probabilities["baseline"], probabilities[student], student)


def compression(config: Config, rows: Rows, test: ImageSet) -> str:
    """Error against size, where students differ in nothing else (Rota Bulò figure 3)."""
    risks = {row: [run.record.metrics["risk"] for run in runs] for row, runs in rows.items()}
    risks |= {student: risks[row] for student, row in config.student_rows.items()}
    references = {row: mean_and_deviation(risks[row])[0] for row in dict.fromkeys(["baseline", teacher_row(config)])}
    captions = {
        "penultimate": "Test error with fewer units in the last hidden layer.",
        "width": "Test error with all layers scaled.",
    }
    pictures = []
    for varied, curves in compression_curves(config, parameter_counts(config, test), risks).items():
        names = [describe(method).split(":")[0] for method in curves]
        if len(set(names)) < len(names):  # one method with several settings
            names = [describe(method) for method in curves]
        figure = compression_figure(dict(zip(names, curves.values(), strict=True)), references)
        pictures.append((figure, f"{captions[varied]} Lines: {listed(names)}", captions[varied]))
    return figures(pictures) if pictures else ""


def compression_curves(
    config: Config, sizes: Mapping[str, int], risks: Mapping[str, Sequence[float]]
) -> dict[str, dict[Method, list[Point]]]:
    """For "penultimate" and "width" the points of each method that has students of several such sizes.

    Args:
        config: of the experiment.
        sizes: parameters of "teacher" and each student.
        risks: error rates of "baseline" and each student, one per seed.
    """
    teacher = config.teacher
    found: dict[str, dict[Method, list[Point]]] = {}
    for varied, fixed in (("penultimate", "width"), ("width", "penultimate")):
        students: dict[Method, list[str]] = {}
        for name, run in config.students.items():
            if run.model.name == teacher.model.name and getattr(run.model, fixed) == getattr(teacher.model, fixed):
                students.setdefault(run.method, []).append(name)
        for method, names in students.items():
            if len({getattr(config.students[name].model, varied) for name in names}) > 1:
                points = [(sizes[name] / sizes["teacher"], *mean_and_deviation(risks[name])) for name in names]
                if method == teacher.method:  # so the baseline is the full size of the same
                    points.append((1.0, *mean_and_deviation(risks["baseline"])))
                found.setdefault(varied, {})[method] = sorted(points, key=lambda point: point[0])
    return found
