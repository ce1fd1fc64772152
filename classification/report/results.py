"""What came out: a section of the page per table or figure of the papers, empty where there is nothing to show.

Shapes: N test images, C classes.
"""

import json
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from uncertainty_core import CalibrationResult, ranking, risk_coverage
from uncertainty_core.plots import COLOURS, reliability_diagram, risk_coverage_plot

from ..config import Config, ConfigError, suggest
from ..data import ImageSet
from ..methods import Method
from .examples import examples
from .figures import Point, compression_figure, corruption_figure, training_figure
from .introduction import describe, listed, parameter_counts
from .markup import figures, paragraph
from .read import Curves, Records
from .tables import (
    COLUMNS,
    mean_and_deviation,
    measurements,
    metric_table,
    outlier_columns,
    outlier_measurements,
)

OVERLAID = len(COLOURS)  # predictors in one diagram, and students with a diagram of their own

Picture = tuple[Figure, str, str]  # what `figures` shows: a drawing, what it says in words, its caption


def main_table(config: Config, records: Records) -> str:
    """Every metric of every predictor (DDN table I, Amara table 1, Rota Bulò table 1)."""
    known = [column.key for column in COLUMNS]
    for row, metrics in config.paper.items():
        for key in metrics:
            if key not in known:
                raise ConfigError(f"paper.{row}.{key} is no column of the report{suggest(key, known)}")
    legend = [
        "↑ higher is better, ↓ lower is better. The best of all rows is bold and the second-best underlined, whatever "
        "number of forward passes they take."
    ]
    if any(len(found) > 1 for found in records.values()):
        legend.append("Rows of n seeds give mean ± sample standard deviation.")
    if config.paper:
        legend.append("Below our values, in italics: what the paper prints.")
    legend.append(
        "Accuracy on the training images is that of a single pass without dropout. "
        "Risk is the share of errors; MSCE and MCE are the mean and the maximum squared calibration error; NLL true "
        "and NLL pred. the negative log-likelihood of the true and of the predicted class; AURC the area under the "
        "risk-coverage curve; MUPE the mean squared difference between the confidences of a row and of the baseline."
    )
    rows = {row: [measurements(record) for record in found] for row, found in records.items()}
    held = {key for found in (*rows.values(), config.paper.values()) for metrics in found for key in metrics}
    columns = [column for column in COLUMNS if column.key in held]
    return metric_table(columns, rows, "Results", config.paper) + paragraph(" ".join(legend), "note")


# --- which rows a diagram shows ----------------------------------------------------------------------------------


def teacher_row(config: Config) -> str:
    """The stochastic teacher: Monte-Carlo dropout with most samples, or the baseline where there is none."""
    samples = config.evaluation.mc_samples
    return f"MC-{max(samples)}" if samples else "baseline"


def overlaid_rows(config: Config, records: Records) -> list[str]:
    """Baseline, stochastic teacher, students and ensemble, as far as there are colours."""
    ensembles = [row for row in records if row.startswith("ensemble of ")]
    return list(dict.fromkeys(["baseline", teacher_row(config), *config.students, *ensembles]))[:OVERLAID]


def teacher_student_pairs(config: Config) -> list[tuple[str, str]]:
    """The row of each student after that of its teacher; both by Monte-Carlo dropout if students are, too."""
    samples = config.evaluation.mc_students
    teacher = f"MC-{samples}" if samples in config.evaluation.mc_samples else teacher_row(config)
    return [(teacher, f"MC-{samples} {student}" if samples else student) for student in config.students]


# --- calibration and risk ----------------------------------------------------------------------------------------


def calibration(config: Config, records: Records, probabilities: Mapping[str, Tensor], test: ImageSet) -> str:
    """Reliability and risk-coverage (DDN figures 2 and 3), and each of several students over its teacher (Amara's)."""
    content = figures(main_pictures(config, records, probabilities, test))
    pairs = teacher_student_pairs(config)
    if len(pairs) > 1:
        few = len(pairs) <= OVERLAID
        content += f"<h3>{'Each student' if few else f'The first {OVERLAID} students'} over the teacher</h3>\n"
        content += figures(_reliability(pair, records) for pair in pairs[:OVERLAID])
    return content


def main_pictures(
    config: Config, records: Records, probabilities: Mapping[str, Tensor], test: ImageSet
) -> tuple[Picture, Picture]:
    """Reliability of baseline, stochastic teacher and students, and the risk-coverage curves of all that fit."""
    rows = overlaid_rows(config, records)
    return _reliability(rows, records), _risk_coverage(rows, probabilities, test)


def _reliability(rows: Sequence[str], records: Records) -> Picture:
    results = {row: CalibrationResult.from_json(json.dumps(records[row][0]["calibration"])) for row in rows}
    said = listed([f"{row} {result.metrics['ece']:.4f}" for row, result in results.items()])
    caption = (
        f"Reliability of {listed(rows)}; what is below the diagonal is overconfident.{_first_seeds(rows, records)}"
    )
    return reliability_diagram(results), f"Reliability diagram, with an expected calibration error of {said}", caption


def _first_seeds(rows: Sequence[str], records: Records) -> str:
    return " The first seed is drawn." if any(len(records[row]) > 1 for row in rows) else ""


def _risk_coverage(rows: Sequence[str], probabilities: Mapping[str, Tensor], test: ImageSet) -> Picture:
    curves = {}
    for row in rows:
        confidence, prediction = probabilities[row].max(1)
        curves[row] = risk_coverage(ranking(1 - confidence, prediction != test.labels.cpu()))
    said = listed([f"{row} {risk[-1].item():.2%}" for row, (_, risk) in curves.items()])
    caption = "Risk and coverage: errors among the most confident share of the test images."
    return risk_coverage_plot(curves), f"Risk-coverage curves, which end at an error rate of {said}", caption


# --- training ----------------------------------------------------------------------------------------------------


def training(config: Config, records: Records, logs: Mapping[str, Sequence[Curves]]) -> str:
    """Accuracy in training and test over epochs (DDN figure 1), where logs are left."""
    colours = dict(zip(overlaid_rows(config, records), COLOURS, strict=False))
    colours["teacher"] = colours["baseline"]  # it is the same network
    lines = {name: [log for log in seeds if log] for name, seeds in logs.items() if name in colours}
    lines = {name: seeds for name, seeds in lines.items() if seeds}
    if not lines:
        return ""
    said = listed([f"{name} {seeds[0]['test'][-1]:.2%}" for name, seeds in lines.items()])
    caption = (
        "Accuracy after each epoch, on the validation images or, where none are set aside, on the test images; "
        "dashed: on the training images, as they pass by with dropout."
    )
    return figures([(training_figure(lines, colours), f"Accuracy over epochs, which ends at {said}", caption)])


# --- other images ------------------------------------------------------------------------------------------------


def outliers(records: Records) -> str:
    """How well each predictor tells images of other data sets."""
    names = list(dict.fromkeys(name for found in records.values() for record in found for name in record["ood"]))
    if not names:
        return ""
    rows = {row: [outlier_measurements(record) for record in found] for row, found in records.items()}
    note = (
        "How well a low confidence tells images of other data sets from the test images. FPR95 is the share of test "
        "images that are rejected along with 95% of the others."
    )
    return metric_table(outlier_columns(names), rows, "Out-of-distribution images") + paragraph(note, "note")


def corruptions(config: Config, records: Records) -> str:
    """Accuracy and ECE against the strength of each corruption."""
    rows = overlaid_rows(config, records)
    pictures = []
    for kind in records["baseline"][0]["corruptions"]:
        accuracy, ece = (
            {row: _by_strength(records[row], kind, metric) for row in rows} for metric in ("accuracy", "ece")
        )
        said = listed([f"{row} {values[-1]:.2%}" for row, values in accuracy.items()])
        pictures.append(
            (
                corruption_figure(accuracy, ece),
                f"Accuracy and ECE under {kind}; at the greatest strength the accuracy is {said}",
                f"{kind.capitalize()} of rising strength; at 0 the test images as they are.",
            )
        )
    return figures(pictures) if pictures else ""


def _by_strength(records: Sequence[Mapping], kind: str, metric: str) -> list[float]:
    """Means over the seeds of a row, of the images as they are first."""
    curves = [
        [measurements(record)[metric], *(float(step[metric]) for step in record["corruptions"][kind])]
        for record in records
    ]
    return [mean_and_deviation(values)[0] for values in zip(*curves, strict=True)]


# --- students ----------------------------------------------------------------------------------------------------


def differences(config: Config, probabilities: Mapping[str, Tensor], test: ImageSet) -> str:
    """Images on which the first student and the baseline differ (DDN figure 6)."""
    if not config.students:
        return ""
    student = next(iter(config.students))
    return examples(test, probabilities["baseline"], probabilities[student], student)


def compression(config: Config, records: Records, test: ImageSet) -> str:
    """Error against size, where students differ in nothing else (Rota Bulò figure 3)."""
    risks = {row: [measurements(record)["risk"] for record in found] for row, found in records.items()}
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
