"""The page of an experiment."""

import base64
import dataclasses
import io
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from pages import Page, check_self_contained, explanations, headings, table_rows, text_of
from PIL import Image
from torch import nn

from classification.checkpoint import CheckpointError
from classification.config import Config, Data, Evaluation, Model, Run, Teacher, load_config
from classification.data import ImageSet
from classification.evaluate import plain_predictors
from classification.experiment import Experiment
from classification.methods import DDN, KD, DropoutDistillation, Standard
from classification.records import PREDICTIONS, images_of, run_folder, run_record, write_run
from classification.report import build_report, write_report
from classification.report import markup as report_markup
from classification.report.examples import PER_GROUP, example_groups, examples, histograms
from classification.report.figures import compression_figure, corruption_figure, training_figure
from classification.report.introduction import config_yaml, describe, in_words, listed, networks, parameter_counts
from classification.report.markup import image
from classification.report.read import evaluated, expected_rows, predictions
from classification.report.results import (
    compression_curves,
    corruptions,
    main_table,
    outlier_columns,
    outlier_measurements,
)
from uncertainty_core import CalibrationMetric
from uncertainty_core.errors import UserError
from uncertainty_core.functional import BIN_METRICS, FINE_BIN_METRICS
from uncertainty_core.report.find import Group, arranged
from uncertainty_core.report.run_record import FILE
from uncertainty_core.report.tables import metric_table
from uncertainty_core.roles import Look


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch):
    monkeypatch.setattr(report_markup, "FIGURE_DPI", 25)  # nobody looks at these


# --- a world of twelve images and three classes ------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("<b>cat</b>", "$dog$", "bird & co")
LABELS = torch.arange(12) % 3
TEST = ImageSet(
    (torch.arange(12 * 64) % 256).byte().view(12, 1, 8, 8), LABELS, CLASSES, tuple(f"i{k}" for k in range(12)), "t"
)
STUDENT = Run(model=Model(), method=DDN())


def softmax(row, seed):
    generator = torch.Generator().manual_seed(len(row) + seed)
    logits = torch.randn(12, 3, generator=generator) + 1.5 * nn.functional.one_hot(LABELS, 3)
    return logits.softmax(1)


def record_of(config, row, seed, probabilities, test=TEST):
    """What `evaluate` records, with made-up numbers beside the calibration."""
    metric = CalibrationMetric(3, config.evaluation.num_bins, config.evaluation.edges)
    metric.update(probabilities, test.labels)
    result = metric.result()
    metrics = {"risk": 1 - result.scores["accuracy"], "aurc": 0.1, "mupe": 0.2, "error_auroc": 0.5}
    details = {
        "networks": {},
        "ood": {name: {"auroc": 0.9, "aupr": 0.8, "fpr95": 0.3} for name in config.evaluation.ood},
        "corruptions": {
            kind: [{"accuracy": 0.5 - 0.1 * k, "ece": 0.1 * k} for k in range(5)]
            for kind in config.evaluation.corruptions
        },
    }
    passes = int(re.match(r"MC-(\d+)|", row)[1] or 1)
    return run_record(config, row, seed, passes, result, metrics, details, probabilities, test, 2.5)


def world(config):
    """(rows, probabilities, logs) of an experiment."""
    p = {run_folder(config.folder, row, seed): softmax(row, seed) for row, seed in expected_rows(config)}
    records = {
        run_folder(config.folder, row, seed): record_of(config, row, seed, softmax(row, seed))
        for row, seed in expected_rows(config)
    }
    group = Group.of(arranged(records))
    curves = {"train": [0.6, 0.9], "test": [0.6, 0.8]}
    logs = {"baseline": [{"train": [0.4, 0.8], "test": [0.5, 0.75]}]}
    logs |= {config.student_rows[name]: [curves for _ in run.seeds] for name, run in config.students.items()}
    return group, {row: p[runs[0].folder] for row, runs in group.rows.items()}, logs


def report(config):
    return build_report(config, *world(config), TEST)


FULL = Config(
    name="full <experiment>",
    students={
        "<i>$x^$": dataclasses.replace(STUDENT, seeds=(0, 1)),
        "narrow": Run(model=Model(width=0.5), method=KD()),
        "narrower": Run(model=Model(width=0.25), method=KD()),
    },
    evaluation=Evaluation(mc_samples=(2, 5), repetitions=2, ood=("mnist", "folder:a&b"), corruptions=("noise", "blur")),
    paper="DDN/CIFAR10",
)


@pytest.fixture(scope="module")
def full():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_markup, "FIGURE_DPI", 25)
        return report(FULL)


# --- numbers -----------------------------------------------------------------------------------------------------


def test_the_common_record_of_a_row():
    config = Config(evaluation=Evaluation(mc_samples=(), num_bins=4, ood=("mnist",)))
    # sure of class 0 six times and of class 1 six times: each is right twice; class 2 is never predicted
    p = torch.tensor([[1.0, 0, 0]] * 6 + [[0, 1.0, 0]] * 6)
    run = record_of(config, "student", 3, p)
    assert (run.name, run.task, run.passes) == ("student", "classification", 1)
    named = Config(students={"a + b": STUDENT, "KD": STUDENT})
    assert named.student_rows == {"a + b": "student (a + b)", "KD": "student (KD)"}
    assert Config(students={"KD": STUDENT}).student_rows == {"KD": "student"}
    assert (run.provenance.seed, run.provenance.seconds) == (3, 2.5)
    assert run.provenance.data.size == 12
    assert run.metrics["accuracy"] == pytest.approx(1 / 3)
    assert run.metrics["ece"] == pytest.approx(2 / 3)
    assert run.metrics["msce"] == run.metrics["mce_squared"] == pytest.approx(4 / 9)
    assert run.metrics["nll_true"] == math.inf
    assert run.metrics["mupe"] == 0.2
    assert run.reliability.count == [0, 0, 0, 12]
    assert run.reliability.success_frequency[3] == pytest.approx(1 / 3)
    # all are equally sure: one level, whose risk is that of everything
    assert run.curves["risk_coverage"].x == [1.0]
    assert run.curves["risk_coverage"].y == pytest.approx([2 / 3])
    # labels go 0, 1, 2, 0, 1, 2, ...: two of the four images of class 0 are among the first six
    assert run.per_class["recall"] == {CLASSES[0]: 0.5, CLASSES[1]: 0.5, CLASSES[2]: 0.0}
    assert run.per_class["ece"] == {CLASSES[0]: 0.5, CLASSES[1]: 0.5, CLASSES[2]: 1.0}
    assert run.paper_row is None
    # every number that was measured is there
    assert run.metrics.keys() >= {*BIN_METRICS, *FINE_BIN_METRICS, "brier", "entropy", "error_auroc", "aurc"}
    assert outlier_measurements(run) == {"mnist auroc": 0.9, "mnist aupr": 0.8, "mnist fpr95": 0.3}


def test_a_class_without_images_has_no_numbers():
    labels = torch.tensor([0, 0, 2])
    images = ImageSet(torch.zeros(3, 1, 8, 8).byte(), labels, ("a", "b", "c"), (0, 1, 2), "t")
    p = torch.tensor([[0.75, 0.25, 0.0]] * 3)
    assert record_of(Config(), "x", 0, p, images).per_class["recall"] == {"a": 1.0, "c": 0.0}


def test_papers_are_quoted_by_the_names_of_the_rows():
    quoting = 0
    for path in sorted((ROOT / "configs" / "classification").glob("*.yaml")):
        config = load_config(path)
        rows = [row for row, _ in expected_rows(config)]
        quoting += bool(config.paper_rows.keys() & rows)
        assert config.paper is None or {"baseline", *config.students} <= config.paper_rows.keys()
    assert quoting == 9


def test_outlier_table_has_a_heading_over_each_data_set():
    rows = {"baseline": [{"a auroc": 0.5, "a aupr": 0.25, "a fpr95": 1.0, "b auroc": 0.75}]}
    groups, head, body = table_rows(
        metric_table(outlier_columns({k: {"auroc": 1, "aupr": 1, "fpr95": 1} for k in "ab"}), rows, "Outliers")
    )
    assert [text_of(cell) for cell in groups] == ["", "a", "b"]
    assert ['colspan="3"' in cell for cell in groups] == [False, True, True]
    assert text_of(head[3]) == "FPR95 ↓ , lower is better %"
    assert [text_of(cell) for cell in body] == ["baseline", "50.00", "25.00", "100.00", "75.00", "—", "—"]


def results_of(html):
    """Row -> label of a column -> cell, of the table of all results."""
    head, *rows = table_rows(html[html.index("<details>") :])
    labels = [text_of(cell).split(" ↓")[0].split(" ↑")[0].removesuffix(" %") for cell in head]
    return {text_of(row[0]): dict(zip(labels, map(text_of, row), strict=True)) for row in rows}


# --- the page ----------------------------------------------------------------------------------------------------


def test_a_full_page_has_all_sections_in_order(full):
    assert headings(full) == [
        "Networks",
        "Results",
        "Calibration and risk",
        "Classes",
        "Training",
        "Out-of-distribution images",
        "Corrupted images",
        "Where student and baseline differ",
        "Compression",
        "Runs",
        "Metrics",
        "Configuration",
    ]


def test_the_page_is_well_formed_and_needs_nothing_else(full):
    check_self_contained(full)
    first = Page(full).attributes("img")[0]["src"]
    assert Image.open(io.BytesIO(base64.b64decode(first.split(",")[1]))).format == "PNG"


def test_names_are_text(full):
    page = Page(full)
    assert not {"i", "b", "experiment"} & {tag for tag, _ in page.elements}
    said = "".join(page.texts)
    assert "full <experiment>" in said
    assert "<i>$x^$" in said
    assert "<b>cat</b>" in said and "bird & co" in said
    assert "folder:a&b" in said


def test_paper_values_stand_below_ours(full):
    rows = results_of(full)
    assert rows["baseline one network, run once"]["Risk"].endswith("paper 13.31")
    assert rows["baseline one network, run once"]["MSCE"].endswith("paper 0.9676")
    assert rows["MC-100"]["MSCE"] == "— paper 0.0330"
    assert {
        "MC-2 mean of 2 passes with dropout, 2 seeds",
        "MC-5 mean of 5 passes with dropout, 2 seeds",
        "student (&lt;i&gt;$x^$) distilled, run once, 2 seeds",
        "student (narrow) distilled, run once",
    } < rows.keys()
    assert "what the paper prints" in full and "sample standard deviation" in full


PLAIN = Evaluation(mc_samples=())


def test_the_same_experiment_gives_the_same_page():
    assert report(Config(evaluation=PLAIN)) == report(Config(evaluation=PLAIN))


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        (Config(evaluation=PLAIN), {"Where student and baseline differ"}),
        (Config(evaluation=Evaluation(mc_samples=(2,)), students={"a": STUDENT}), set()),
        (Config(teacher=Teacher(seeds=(0, 1)), evaluation=PLAIN), {"Where student and baseline differ"}),
    ],
    ids=["baseline alone", "one student", "ensemble"],
)
def test_what_is_missing_is_left_out(config, missing):
    html = report(config)
    Page(html)
    always = {"Out-of-distribution images", "Corrupted images", "Compression"}
    assert not (missing | always) & set(headings(html))
    assert {"Networks", "Results", "Calibration and risk", "Training", "Configuration"} <= set(headings(html))
    assert "what the paper prints" not in html and "sample standard deviation" not in html


def test_what_is_explained_is_explained_once(full):
    found = explanations(full)
    assert len(found) > 20 and [x for x in found if found.count(x) > 1] == []


def test_no_log_no_training_section():
    config = Config(evaluation=PLAIN)
    group, probabilities, _ = world(config)
    assert "Training" not in headings(build_report(config, group, probabilities, {"baseline": [{}]}, TEST))


def test_accuracy_in_training_is_shown_where_it_was_measured():
    config = Config(evaluation=Evaluation(mc_samples=(2,)), paper="KD/MNIST")
    group, probabilities, logs = world(config)
    group.rows["baseline"][0].record.metrics["train_accuracy"] = 0.5
    found = results_of(build_report(config, group, probabilities, logs, TEST))
    baseline, sampled = found["baseline one network, run once"], found["MC-2 mean of 2 passes with dropout"]
    assert baseline["Training acc."] == "50.00 paper 99.87"
    assert sampled["Training acc."] == "—"
    assert "Validation acc." in baseline  # of the paper alone


def test_undefined_and_infinite_metrics_are_said():
    config = Config(evaluation=PLAIN, students={"a": STUDENT})
    group = world(config)[0]
    group.rows["student"][0].record.metrics.update(aurc=math.nan, mupe=math.inf, nll_true=math.inf)
    row = results_of(main_table(config, group))["student distilled, run once"]
    assert [row[label] for label in ("NLL true", "AURC", "MUPE")] == ["∞", "undefined", "∞"]


# --- which rows are drawn ----------------------------------------------------------------------------------------


def test_the_rows_of_the_pictures_are_ticked(full):
    ticked = {box["data-run"]: "checked" in box for box in Page(full).attributes("input")}
    # baseline, the three students and MC-5; MC-2 is drawn on demand
    assert ticked == {f"run-{k}": k != 4 for k in range(6)}


def test_corruption_curves_start_with_the_images_as_they_are(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "classification.report.results.corruption_figure",
        lambda accuracy, ece: drawn.update(accuracy=accuracy, ece=ece) or corruption_figure(accuracy, ece),
    )
    config = Config(evaluation=Evaluation(mc_samples=(2,), repetitions=2, corruptions=("noise",)))
    rows = world(config)[0].rows
    rows["MC-2"][1].record.details["corruptions"]["noise"] = [{"accuracy": 0.1, "ece": 0.5}] * 5
    html = corruptions(config, rows)
    clean = [run.record.metrics["accuracy"] for run in rows["MC-2"]]
    # the mean over two seeds, one of which falls from 0.5 by 0.1 each time
    assert drawn["accuracy"]["MC-2"] == pytest.approx([sum(clean) / 2, 0.3, 0.25, 0.2, 0.15, 0.1])
    assert drawn["ece"]["MC-2"][1:] == pytest.approx([0.25, 0.3, 0.35, 0.4, 0.45])
    assert "at the greatest strength the accuracy is baseline 10.00% and MC-2 10.00%" in html


# --- drawings ----------------------------------------------------------------------------------------------------


def test_training_lines_share_the_colour_of_their_network():
    curves = [{"train": [0.7, 0.8], "test": [0.1, 0.2]}, {"train": [math.nan, 0.9], "test": [0.3, 0.4]}]
    figure = training_figure({"baseline": curves[:1], "a": curves}, {"baseline": Look("#0072b2"), "a": Look("r")})
    (axes,) = figure.axes
    assert [to_hex(line.get_color()) for line in axes.lines] == ["#0072b2"] * 2 + ["#ff0000"] * 4
    assert [line.get_linestyle() for line in axes.lines] == ["--", "-"] * 3
    np.testing.assert_array_equal(axes.lines[4].get_xydata(), [[1, math.nan], [2, 90]])
    np.testing.assert_array_equal(axes.lines[5].get_xydata(), [[1, 30], [2, 40]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["baseline", "a"]


def test_compression_is_drawn_in_percent():
    figure = compression_figure({"KD": [(0.25, 0.2, 0.05), (1.0, 0.1, None)]}, {"baseline": 0.15})
    (axes,) = figure.axes
    baseline, line = sorted(axes.lines, key=lambda line: line.get_label() != "baseline")[:2]
    np.testing.assert_allclose(baseline.get_ydata(), [15, 15])
    np.testing.assert_allclose(axes.containers[0].lines[0].get_xydata(), [[25, 20], [100, 10]])
    (bars,) = axes.containers[0].lines[2]
    np.testing.assert_allclose(bars.get_segments(), [[[25, 15], [25, 25]], [[100, 10], [100, 10]]])
    assert line is not None


def test_compression_needs_students_that_differ_in_size_alone():
    quick = Model(name="quick")
    kd, smaller = KD(), {"width": 0.5}
    students = {
        "a": Run(model=dataclasses.replace(quick, **smaller), method=kd),
        "b": Run(model=quick, method=kd),
        "labels": Run(model=dataclasses.replace(quick, width=0.25)),
        "labels, wider": Run(model=dataclasses.replace(quick, width=0.75)),
        "units": Run(model=dataclasses.replace(quick, penultimate=8), method=kd),
        "other network": Run(model=Model(name="nin", width=0.1), method=kd),
        "other method": Run(model=dataclasses.replace(quick, **smaller), method=KD(temperature=3.0)),
    }
    config = Config(teacher=Teacher(model=quick), students=students)
    sizes = {"teacher": 100, "a": 30, "b": 100, "labels": 10, "labels, wider": 60, "units": 80}
    risks = {"baseline": [0.2], "a": [0.3, 0.5], "b": [0.1], "labels": [0.6], "labels, wider": [0.4], "units": [0.15]}
    deviation = math.sqrt(0.1**2 + 0.1**2)
    curves = compression_curves(config, sizes, risks)
    assert curves == {
        # "b" has the 64 units that `quick` has by itself
        "penultimate": {kd: [(0.8, 0.15, None), (1.0, 0.1, None)]},
        "width": {
            kd: [(0.3, pytest.approx(0.4), pytest.approx(deviation)), (1.0, 0.1, None)],
            # trained as the teacher was, so the baseline is their full size
            Standard(): [(0.1, 0.6, None), (0.6, 0.4, None), (1.0, 0.2, None)],
        },
    }
    assert compression_curves(Config(students={"a": STUDENT}), {}, {}) == {}


# --- examples ----------------------------------------------------------------------------------------------------


def by_hand():
    """(baseline, student, labels) of eight images of class 0, out of three."""
    pairs = [
        ([0.90, 0.10, 0.00], [0.60, 0.40, 0.00]),  # 0: both right, the student less sure
        ([0.90, 0.10, 0.00], [0.50, 0.40, 0.10]),  # 1: the same, more so
        ([0.80, 0.20, 0.00], [0.90, 0.10, 0.00]),  # 2: both right, the student surer
        ([0.00, 1.00, 0.00], [0.70, 0.30, 0.00]),  # 3: baseline very sure and wrong, student right
        ([0.10, 0.60, 0.30], [0.80, 0.20, 0.00]),  # 4: baseline wrong by 0.5
        ([0.45, 0.55, 0.00], [0.60, 0.40, 0.00]),  # 5: baseline wrong by 0.1
        ([0.10, 0.90, 0.00], [0.40, 0.60, 0.00]),  # 6: both wrong, the student less so
        ([0.40, 0.60, 0.00], [0.10, 0.90, 0.00]),  # 7: both wrong, the student more so
        ([0.70, 0.30, 0.00], [0.20, 0.80, 0.00]),  # 8: baseline right, student wrong
    ]
    baseline, student = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return baseline, student, torch.zeros(len(pairs), dtype=torch.int64)


def test_groups_of_examples():
    groups = example_groups(*by_hand())
    assert [group.indices.tolist() for group in groups] == [[1, 0], [3], [5, 4], [6], [8]]
    assert groups[1].title == "Baseline wrong and more than 99% sure, student right"


def set_of(labels, channels=1, size=8):
    images = torch.zeros(len(labels), channels, size, size, dtype=torch.uint8)
    return ImageSet(images, labels, ("zero", "<one>", "two"), tuple(range(len(labels))), "test")


def test_examples_say_how_often_who_is_right():
    baseline, student, labels = by_hand()
    html = examples(set_of(labels), baseline, student, "DDN")
    Page(html)
    _, right, wrong = [[text_of(cell) for cell in row] for row in table_rows(html)]
    assert right == ["baseline right", "33.33%", "11.11%"]  # 3 and 1 of 9
    assert wrong == ["baseline wrong", "33.33%", "22.22%"]  # 3 and 2 of 9
    assert "On 50% of the images that both get wrong" in html
    assert html.count('<figure class="card">') == 7
    assert "2 of 9 test images (22.22%)" in html
    card = html[html.index("Test image 6,") :]
    assert text_of(card[: card.index("</figure>")]).endswith("zero student: &lt;one&gt; baseline: &lt;one&gt;")


def test_empty_groups_are_left_out():
    sure = torch.tensor([[0.9, 0.1, 0.0]] * 2)
    html = examples(set_of(torch.zeros(2, dtype=torch.int64)), sure, sure, "DDN")
    assert "<h3>" not in html and "card" not in html
    assert "No image is misclassified by both." in html


def test_a_group_shows_a_few_images():
    labels = torch.zeros(30, dtype=torch.int64)
    html = examples(set_of(labels), torch.tensor([[0.9, 0.1, 0.0]] * 30), torch.tensor([[0.8, 0.2, 0.0]] * 30), "DDN")
    assert html.count('<figure class="card">') == PER_GROUP
    assert "30 of 30 test images (100.00%)" in html


def test_histograms_go_up_and_down():
    svg = Page(histograms(torch.tensor([0.25, 0.75]), torch.tensor([0.0, 1.0]), label=1))
    truth, *bars = [
        (rect["class"], *(float(rect[key]) for key in ("x", "y", "width", "height"))) for rect in svg.attributes("rect")
    ]
    assert truth == ("truth", 50, 0, 50, 100)
    # 48 units for a probability of 1, from the middle at 50; what is nearly 0 is not drawn
    assert bars == [("student", 5, 38, 40, 12), ("student", 55, 14, 40, 36), ("baseline", 55, 50, 40, 48)]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize(("size", "shown"), [(32, 32), (500, 192)])
def test_images_are_kept_or_shrunk(channels, mode, size, shown):
    pixels = torch.randint(0, 256, (channels, size, size), generator=torch.Generator().manual_seed(0)).byte()
    (attributes,) = Page(image(pixels, 'a "7"')).attributes("img")
    assert attributes["alt"] == 'a "7"'
    assert ("class" in attributes) == (size < 96)
    picture = Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1])))
    assert (picture.mode, picture.size) == (mode, (shown, shown))
    if size == shown:
        expected = pixels.permute(1, 2, 0).squeeze(2).numpy() if channels == 1 else pixels.permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(np.asarray(picture), expected)


# --- what was done -----------------------------------------------------------------------------------------------


def test_the_experiment_in_words():
    assert in_words(Config(data=Data(name="mnist"), evaluation=PLAIN), TEST) == (
        "A digits network is trained on mnist (3 classes). "
        "Measured on 12 test images: the network without dropout (the baseline)."
    )
    config = Config(teacher=Teacher(seeds=(0, 1)), students={"a": STUDENT, "b": STUDENT})
    assert in_words(config, TEST) == (
        "A digits network is trained on digits (3 classes). 2 students learn to answer in a single forward pass. "
        "Measured on 12 test images: the network without dropout (the baseline), "
        "Monte-Carlo dropout with 10 and 100 samples, an ensemble of 2 and the students."
    )
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_networks_and_command():
    students = {"small": Run(model=Model(width=0.5, dropout=0.3), method=KD(temperature=4.0, alpha=0.25), seeds=(0, 2))}
    html = networks(Config(name="my digits", students=students), TEST)
    sizes = parameter_counts(Config(students=students), TEST)
    _, teacher, student = [[text_of(cell) for cell in row] for row in table_rows(html)]
    assert teacher == ["teacher", "digits", f"{sizes['teacher']:,}", "30", "0", "Labels alone"]
    assert student[:5] == ["small", "digits, width 0.5, dropout 0.3", f"{sizes['small']:,}", "30", "0, 2"]
    assert "temperature 4 (weight 0.25) and labels (weight 0.75)" in student[5]
    assert "distilled-uncertainty classification run --config &#x27;my digits.yaml&#x27;" in html


def test_parameter_counts_are_those_of_the_models():
    students = {"units": Run(model=Model(name="quick", penultimate=8))}
    images = ImageSet(torch.zeros(1, 3, 32, 32).byte(), torch.zeros(1).long(), tuple("0123456789"), (0,), "cifar10")
    state = torch.get_rng_state()
    # as the docstring of `quick` has them
    assert parameter_counts(Config(teacher=Teacher(model=Model(name="quick")), students=students), images) == {
        "teacher": 145_578,
        "units": 87_618,
    }
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Standard(), "Labels alone"),
        (DDN(mc_samples=7), "mean of 7 stochastic logits"),
        (DropoutDistillation(images="test"), "unlabelled test images, from the teacher's weights"),
        (DropoutDistillation(initialize="scratch"), "perturbed training images, from scratch"),
        (DropoutDistillation(initialize="subset"), "from the teacher's first filters"),
        (KD(), "temperature 10"),
    ],
)
def test_methods_in_words(method, words):
    assert words in describe(method)


def test_the_printed_configuration_is_the_experiment(tmp_path):
    students = {
        "a: b": Run(method=DropoutDistillation(images="test"), seeds=(3, 4)),
        "c": Run(model=Model(penultimate=8), method=KD(temperature=1e-5)),
        "d": STUDENT,
        "e": Run(),
    }
    config = dataclasses.replace(FULL, students=students)
    path = tmp_path / "anything.yaml"
    path.write_text(config_yaml(config), encoding="utf-8")
    assert load_config(path) == config


# --- from disk ---------------------------------------------------------------------------------------------------

ON_DISK = Config(
    name="on disk",
    students={"a": dataclasses.replace(STUDENT, seeds=(0, 1))},
    evaluation=Evaluation(mc_samples=(10, 2), mc_students=3),
)


def written(config, folder):
    """`config`, with all that training and evaluation leave in `folder`."""
    config = dataclasses.replace(config, output=str(folder))
    for row, seed in expected_rows(config):
        p = softmax(row, seed)
        images = images_of(p, TEST, config.evaluation)
        write_run(run_folder(config.folder, row, seed), record_of(config, row, seed, p), p, images)
    for place in ("teacher/seed-0", "students/a/seed-0"):
        (config.folder / place).mkdir(parents=True)
        (config.folder / place / "log.csv").write_text(
            "epoch,loss,train_accuracy,accuracy\n1,2.0,0.25,0.5\n2,1.0,0.75,0.625\n"
        )
    return config


def experiment_of(config):
    experiment = Experiment(config, torch.device("cpu"))
    experiment.__dict__["test_set"] = TEST  # in place of a data set
    return experiment


def test_write_report(tmp_path, capsys):
    config = written(ON_DISK, tmp_path)
    path = write_report(experiment_of(config))
    assert path == tmp_path / "on disk" / "report.html"
    said = capsys.readouterr().out
    for name in ("report.html", "reliability.png", "risk_coverage.png"):
        assert str(path.with_name(name)) in said
        assert path.with_name(name).stat().st_size > 5000
    html = path.read_text(encoding="utf-8")
    Page(html)
    names = [text_of(row[0]) for row in table_rows(html[html.index('id="results"') :])]
    assert names == [
        "predictor",
        "baseline one network, run once",
        "student distilled, run once, 2 seeds",
        "MC-2 mean of 2 passes with dropout",
        "MC-3 of student mean of 3 passes with dropout, 2 seeds",
        "MC-10 mean of 10 passes with dropout",
    ]
    assert "ends at baseline 62.50% and student 62.50%" in html
    assert [file.name for file in config.folder.glob("report*")] == ["report.html"]


@pytest.mark.parametrize("teacher_seeds", [(5,), (5, 6)])
def test_rows_are_those_that_evaluate_measures(teacher_seeds):
    evaluation = Evaluation(mc_samples=(10, 2), repetitions=2, mc_students=3)
    config = dataclasses.replace(ON_DISK, teacher=Teacher(seeds=teacher_seeds), evaluation=evaluation)
    members = [nn.Identity() for _ in teacher_seeds]
    experiment = SimpleNamespace(config=config, baseline=members[0], members=members, trained=lambda *_: nn.Identity())
    assert list(expected_rows(config)) == [(found.row, found.seed) for found in plain_predictors(experiment)]


def test_leftovers_of_other_settings_are_passed_over(tmp_path):
    config = written(ON_DISK, tmp_path)
    fewer = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, mc_samples=(2,)))
    assert list(evaluated(config).rows) == ["baseline", "student", "MC-2", "MC-3 of student", "MC-10"]
    assert list(evaluated(fewer).rows) == ["baseline", "student", "MC-2", "MC-3 of student"]
    # calibrated rows of an earlier run that had calibrators
    calibrated, p = "baseline + temperature", softmax("baseline", 0)
    write_run(
        run_folder(config.folder, calibrated, 0),
        record_of(config, calibrated, 0, p),
        p,
        images_of(p, TEST, config.evaluation),
    )
    plain = dataclasses.replace(fewer, evaluation=dataclasses.replace(fewer.evaluation, calibrators=()))
    assert calibrated in evaluated(fewer).rows and calibrated not in evaluated(plain).rows
    assert [run.record.provenance.seed for run in evaluated(fewer).rows["student"]] == [0, 1]


def test_nothing_evaluated_is_said_in_a_sentence(tmp_path):
    config = dataclasses.replace(ON_DISK, output=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"holds nothing about baseline, seed 0: run evaluate first$"):
        write_report(experiment_of(config))
    assert not list(tmp_path.rglob("*.html"))


def test_a_part_that_is_missing_is_named(tmp_path):
    config = written(ON_DISK, tmp_path)
    (run_folder(config.folder, "a", 1) / FILE).unlink()
    with pytest.raises(CheckpointError, match=r"holds nothing about a, seed 1: run evaluate first$"):
        evaluated(config)


def test_what_the_configuration_says_of_its_paper_now_is_shown(tmp_path):
    config = written(ON_DISK, tmp_path)
    config = dataclasses.replace(config, paper="DDN/CIFAR10")
    quoted = {row: runs[0].record.paper_row for row, runs in evaluated(config).rows.items()}
    assert {row for row, paper in quoted.items() if paper} == {"baseline", "MC-10"}
    assert quoted["MC-10"].metrics["passes"] == 10


@pytest.mark.parametrize(
    "key",
    [
        {"num_bins": 7},
        {"edges": "left"},
        {"ood": ("mnist",)},
        {"corruptions": ("blur",)},
        {"precision": "bfloat16"},
        {"channels_last": True},
    ],
)
def test_an_evaluation_of_other_things_is_refused(key, tmp_path):
    config = written(ON_DISK, tmp_path)
    other = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **key))
    (name,) = key
    with pytest.raises(CheckpointError, match=f"was made with another evaluation.{name}: run evaluate again$"):
        evaluated(other)


def test_damaged_files_are_refused(tmp_path):
    config = written(ON_DISK, tmp_path)
    place = run_folder(config.folder, "a", 0)
    (place / PREDICTIONS).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"a/seed-0/probabilities.safetensors cannot be read .* evaluate again$"):
        predictions(place, 12)
    with pytest.raises(CheckpointError, match=r"predictions for 12 images, but there are 13: run evaluate again$"):
        predictions(run_folder(config.folder, "baseline", 0), 13)
    (place / FILE).write_text('{"row": ')
    with pytest.raises(UserError, match=r"a/seed-0/run.json is damaged .*: evaluate"):
        evaluated(config)
