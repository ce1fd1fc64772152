"""The page that compares runs: its numbers, its drawings, and that it needs nothing beside itself."""

import base64
import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import setuptools  # brings distutils
import torch
from pages import Page, check_self_contained, explanations, headings, table_rows, text_of
from report_runs import DIGITS, SCENES, STREETS, bins, record, write_runs

from uncertainty_core.catalog import CURVES, METRICS, Metric, metric
from uncertainty_core.colours import COLOURS
from uncertainty_core.errors import UserError
from uncertainty_core.intervals.classified import ClassifiedImages
from uncertainty_core.intervals.storage import write_images
from uncertainty_core.report import Run, build_page, find_runs
from uncertainty_core.report.__main__ import main
from uncertainty_core.report.charts import Frame, Style, curve_chart, reliability_chart, ticks
from uncertainty_core.report.find import Group, distinct
from uncertainty_core.report.markdown import comparison
from uncertainty_core.report.run_record import Curve, Data, PaperRow, Picture, RunRecord, Training
from uncertainty_core.report.sections import boxes, charts, classes, equal_count, pictures, provenance, styles, summary
from uncertainty_core.report.tables import class_table, mean_and_deviation, metric_table
from uncertainty_core.roles import Look

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of all three tasks. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return build_page(find_runs([folder]), "All <of> them")


def rows_of(*records):
    """As the sections want them."""
    rows = {}
    for found in records:
        rows.setdefault(found.name, []).append(Run(Path("nowhere"), found, found.name))
    return rows


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 4.5], (2.5, math.sqrt((1.5**2 + 0.5**2 + 2**2) / 2))),
        ([3.0], (3.0, None)),
        ([1.0, math.inf], (math.inf, None)),
    ],
)
def test_mean_and_sample_deviation(values, expected):
    assert mean_and_deviation(values) == expected


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, -math.inf]])
def test_the_mean_may_be_undefined(values):
    mean, deviation = mean_and_deviation(values)
    assert math.isnan(mean)
    assert deviation is None


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("accuracy", 0.12345, "12.35"),
        ("AP", 25.024, "25.02"),
        ("msce", 0.0012346, "0.1235"),
        ("parameters", 12334180, "12,334,180"),
        ("unheard of", 2.0, "2.0000"),
        ("ece", math.nan, "undefined"),
        ("ece", math.inf, "∞"),
        ("ece", -math.inf, "-∞"),
    ],
)
def test_numbers_are_printed_in_the_unit_of_their_metric(key, value, text):
    assert metric(key).text(value) == text


def test_a_metric_may_be_at_a_threshold():
    found = metric("msce@50")
    assert (found.key, found.label, found.better, found.text(0.0012)) == ("msce@50", "MSCE@50", "lower", "0.1200")


def test_every_metric_is_defined():
    assert all(found.definition and len(found.definition) < 100 for found in METRICS.values())
    assert {found.better for found in METRICS.values()} == {"higher", "lower", None}


# --- tables ------------------------------------------------------------------------------------------------------


def test_table_of_two_seeds_and_a_paper():
    columns = [Metric("passes", "Passes", digits=0)]
    columns.append(Metric("accuracy", "Accuracy", "of <all>", "higher", "%", 2, factor=100))
    columns.append(Metric("msce", "MSCE", better="lower", unit="x 100", factor=100))
    rows = {
        # mean 0.85, sample deviation sqrt((0.05² + 0.05²) / 1) = 0.0707; mean 0.002, deviation 0.001414
        "student": [{"passes": 1, "accuracy": 0.8, "msce": 0.001}, {"passes": 1, "accuracy": 0.9, "msce": 0.003}],
        "baseline": [{"passes": 1, "accuracy": 0.75, "msce": 0.001}],
        "MC-2": [{"passes": 2, "accuracy": math.nan, "msce": math.inf}],
    }
    paper = {"baseline": {"msce": 0.009676}, "MC-9": {"accuracy": 0.5}}
    html = metric_table(columns, rows, "Results", paper).replace("MC-2<", "MC-2 <")
    head, *body = table_rows(html)
    assert [text_of(cell) for cell in head] == [
        "predictor",
        "Passes",
        "Accuracy ↑ , higher is better %",
        "MSCE ↓ , lower is better x 100",
    ]
    assert 'title="of &lt;all&gt;"' in head[2]
    assert [[text_of(cell) for cell in row] for row in body] == [
        ["student distilled, run once, 2 seeds", "1", "85.00 ± 7.07", "0.2000 ± 0.1414"],
        ["baseline one network, run once", "1", "75.00", "0.1000 paper 0.9676"],
        ["MC-9", "—", "— paper 50.00", "—"],  # the paper alone has it
        ["MC-2 mean of 2 passes with dropout", "2", "undefined", "∞"],
    ]
    assert html.count("<tbody>") == 2 and html.index("MC-9") < html.rindex("<tbody>") < html.index("MC-2 ")
    # what a script sorts by; nothing where there is no number
    values = [[re.findall(r'data-value="(.*?)"', cell) for cell in row[1:]] for row in body]
    assert values[0][1] == ["0.8500000000000001"]
    assert values[2:] == [[[], [], []], [["2.0"], [], ["Infinity"]]]


def test_table_of_classes():
    rows = {
        "a": [{"road": 0.9, "<pole>": 0.5}, {"road": 0.7, "<pole>": 0.5}],
        "b": [{"road": 0.85, "sky": 0.25}],
        "c": [{"road": 0.1, "<pole>": 0.75}],
    }
    names = ["road", "<pole>", "sky"]
    html = class_table(metric("recall"), names, rows, {"b": {"road": 0.5}}, "Recall of each class")
    Page(html)
    head, *body = table_rows(html)
    assert [text_of(cell) for cell in head] == ["class", "a", "b", "c"]
    assert [[text_of(cell) for cell in row] for row in body] == [
        ["road", "80.00 ± 14.14", "85.00 paper 50.00", "10.00"],
        ["&lt;pole&gt;", "50.00 ± 0.00", "—", "75.00"],
        ["sky", "—", "25.00", "—"],
    ]


def test_every_column_has_a_button_that_knows_what_is_best():
    head = table_rows(metric_table([metric("accuracy"), metric("ece"), metric("passes")], {"a": [{"ece": 1.0}]}, "x"))[
        0
    ]
    assert all('<th scope="col"><button type="button"' in cell for cell in head)
    assert ['data-first="descending"' in cell for cell in head] == [False, True, False, False]


# --- sections ----------------------------------------------------------------------------------------------------


def test_summary_of_runs_and_papers():
    paper = PaperRow("Somebody 1999, table <9>", {"ece": 0.25, "brier": 0.5})
    rows = rows_of(
        record(metrics={"new one": 1.0, "ece": 0.5, "accuracy": 0.5}, paper_row=paper), record("b", passes=4)
    )
    html = summary(Group(rows), {"only theirs": PaperRow("Else 2000", {"ece": 0.125})})
    short, every = html.split("<details>")
    head, ours, theirs, other = [[text_of(cell) for cell in row] for row in table_rows(every)]
    # in the order of the registry, what it does not know at the end
    assert [text.split(" ")[0] for text in head] == ["predictor", "Passes", "Test", "ECE", "Brier", "new"]
    assert ours[1:] == ["1", "50.00", "0.5000 paper 0.2500", "— paper 0.5000", "1.0000"]
    assert other[1:3] == ["4", "50.00"]
    assert theirs == ["only theirs", "—", "—", "— paper 0.1250", "—", "—"]
    # the short table has what the task's short tables have
    assert [text_of(cell).split(" ")[0] for cell in table_rows(short)[0]] == [text.split(" ")[0] for text in head[:-1]]
    assert "All 5 metrics" in every
    assert "In italics what the paper prints: Somebody 1999, table &lt;9&gt;; Else 2000." in html
    assert "sample standard deviation" not in html


def test_equal_count_has_a_table_for_each_n():
    found = [{"n": n, "d_ece": error, "mce": 1.0} for n, error in ((187, 0.25), (187, 0.125), (54, 0.5))]
    rows = rows_of(*(record(name, equal_count=values) for name, values in zip("abc", found, strict=True)), record("d"))
    html = equal_count(rows)
    cells = [[text_of(cell) for cell in row] for row in table_rows(html)]
    assert [row[1:] for row in cells[1:]] == [["187", "0.2500"], ["187", "0.1250"]]  # the short table's columns
    assert html.count("<table") == 2 and "Results on the best 54 detections" in html and "0.5000" in html


def test_deviations_of_boxes_have_a_table_of_the_rows_that_know_them():
    values = {"AP": 40.0, "box_crps": 0.25, "coverage90": 0.875, "box_nll": 1.5}
    rows = rows_of(*(record(name, "detection", metrics=values) for name in ("a", "a + platt")))
    rows |= rows_of(record("b", "detection", metrics={"AP": 41.0}))
    (_, *heads), *others = ([text_of(cell) for cell in row] for row in table_rows(boxes(Group(rows))))
    assert [head.partition(" ↓")[0] for head in heads[:4]] == ["Box NLL", "Box CRPS", "Coverage 50 %", "Coverage 90 %"]
    assert [row[1:5] for row in others] == [["1.5000", "0.2500", "—", "87.50"]]
    assert "Box" not in summary(Group(rows))
    assert boxes(Group(rows_of(record("b", "detection")))) == ""


def test_classes_of_which_nothing_is_learnt_are_folded():
    recall, ece = {"road": 0.5, "pole": 0.0, "sky": 0.0}, {"road": 0.25, "pole": 0.5, "sky": 0.75}
    one = record(per_class={"recall": recall, "ece": ece})
    two = record("student", per_class={"recall": recall | {"sky": 0.125}, "ece": ece})
    shown, *more = classes(rows_of(one, two)).split("<details>")
    assert ">pole<" not in shown and "sky" in shown
    assert len(more) == 2 and all("1 class of which no predictor has learnt anything" in html for html in more)
    assert all(text_of(table_rows(html)[1][0]) == "pole" for html in more)
    assert "<details>" not in classes(rows_of(record(per_class={"recall": {"pole": 0.0}})))  # nobody has learnt at all


def test_empty_sections_are_empty():
    rows = rows_of(record())
    assert (charts(rows, styles(rows)), classes(rows), pictures(rows), equal_count(rows)) == ("", "", "", "")


def test_no_two_rows_are_drawn_alike():
    drawn = styles(dict.fromkeys([f"{name}{calibrator}" for name in "abcdefgh" for calibrator in ("", " + platt")], ()))
    assert [style.drawn for style in drawn.values()] == [True, False] * 6 + [False] * 4
    assert len({(style.stroke, style.mark(0, 0)) for style in drawn.values()}) == 16


def test_runs_of_one_command_share_a_box():
    html = provenance(rows_of(record(), record(seed=1), record("b", seed=None, passes=7), record("c", data=SCENES)))
    Page(html)
    assert html.count('<div class="run">') == html.count(">Copy</button>") == 2
    assert "python -m classification evaluate --config &#x27;digits.yaml&#x27; data.limit=3" in html
    assert "Weights by" not in html
    trained = provenance(rows_of(record(), record("b", training=Training("train it", {"lr": 0.1}))))
    assert "<dt>Weights by</dt><dd><code>train it</code></dd>" in trained and trained.count('<div class="run">') == 2
    assert DIGITS.fingerprint in html and "torch 2.11.0" in html and "digits, 800 images" in html
    assert [[text_of(cell) for cell in row] for row in table_rows(html)[1:]] == [
        ["baseline", "0", "1", "1.2"],
        ["baseline", "1", "1", "1.2"],
        ["b", "none", "7", "1.2"],
    ]


def test_pictures_are_embedded(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not looked into")
    run = Run(tmp_path, record(pictures=[Picture("a.png", "scene <1>")]), "baseline")
    html = pictures({"baseline": [run]})
    assert "<figcaption>scene &lt;1&gt;</figcaption>" in html
    (attributes,) = Page(html).attributes("img")
    assert attributes["alt"] == "baseline: scene <1>"
    kind, content = attributes["src"].split(";base64,")
    assert (kind, base64.b64decode(content)) == ("data:image/png", b"not looked into")
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"the picture .*a.png is gone: evaluate baseline again$"):
        pictures({"baseline": [run]})
    with pytest.raises(UserError, match=r"b.tiff is no picture that a page can show: .png, "):
        pictures({"baseline": [Run(tmp_path, record(pictures=[Picture("b.tiff", "")]), "baseline")]})


# --- drawings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.12, [0, 0.05, 0.1]),
        (0.71, 0.9, [0.75, 0.8, 0.85, 0.9]),
        (3, 3.0001, [3, 3.00002, 3.00004, 3.00006, 3.00008, 3.0001]),
        (-20, 130, [0, 50, 100]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_frame_turns_values_into_pixels():
    frame = Frame(10, 100, (0, 2), (0.5, 1))
    # 58 pixels on the left and 12 on the right of 440 leave 370
    assert frame.points([0, 1, math.nan, 2], [0.5, 1, 1, 0.75]) == "58.0,110.0 243.0,10.0 428.0,60.0"


def drawn(html):
    """Of each run the places of its marks, and the points of its lines, in pixels."""
    found = {}
    for run, content in re.findall(r'<g class="series" data-run="(.*?)">(.*?)</g>\n', html, re.DOTALL):
        marks = [tuple(map(float, m)) for m in re.findall(r"translate\(([\d.]+) ([\d.]+)\)", content)]
        lines = [
            [tuple(map(float, p.split(","))) for p in line.split()] for line in re.findall('points="(.*?)"', content)
        ]
        found[run] = marks, lines
    return found


def test_reliability_is_drawn_where_it_is():
    found = bins(1.0)
    html = reliability_chart(
        {"<a>": found}, {"<a>": Style("r", Look(COLOURS[0]), True)}, {"<a>": "ECE 0.1"}, "How & why"
    )
    page = Page(html)
    ((marks, (line, histogram)),) = drawn(html).values()
    # the diagonal goes from (58, 350) to (428, 10); the first bin is empty
    assert marks == line
    assert line == [
        (pytest.approx(58 + 370 * p, abs=0.06), pytest.approx(350 - 340 * p, abs=0.06))
        for p in found.mean_confidence[1:]
    ]
    assert histogram[0] == (58, 460) and histogram[-1] == (428, 460)  # on the ground at both ends
    assert min(y for _, y in histogram) == 380  # the fullest bin
    # of 800 samples the bin of 2 is below a hundredth, which is said by an empty mark
    assert html.count('class="hollow"') == 1 and html.index('class="hollow"') < html.index('fill="#0072B2"')
    assert "&lt;a&gt;: 2 with confidence 0.10 to 0.20, on average 0.150; right 0.150" in html
    assert page.attributes("svg")[0]["aria-label"] == "Reliability diagram. <a> ECE 0.1"
    (box,) = page.attributes("input")
    assert (box["type"], box["data-run"], "checked" in box) == ("checkbox", "r", True)
    assert "How &amp; why" in html


def test_curves_are_drawn_with_their_oracles():
    runs = {"a": Curve([0.0, 1.0], [0.5, 0.75], [0.5, 1.0]), "b": Curve([0.0, 0.5, 1.0], [0.5, math.nan, 0.5])}
    looks = {"a": Style("r0", Look(COLOURS[0]), True), "b": Style("r7", Look(COLOURS[1], 7, 1), False)}
    html = curve_chart(CURVES["sparsification"], runs, looks)
    page = Page(html)
    (_, (curve, oracle)), (_, (other,)) = drawn(html).values()
    # from 50 % to 100 % with a margin of 1.5 on either side: 50 is at 350 - 340 · 1.5 / 53
    assert curve == [(58, 340.4), (428, pytest.approx(10 + 340 * 0.265 / 0.53, abs=0.06))]
    assert oracle == [(58, 340.4), (428, pytest.approx(10 + 340 * 0.015 / 0.53, abs=0.06))]
    assert other == [(58, 340.4), (428, 340.4)]  # what is not finite is left out
    assert [line.get("class") for line in page.attributes("polyline")] == [None, "oracle", None]
    assert [line.get("stroke-dasharray") for line in page.attributes("polyline")] == [None, None, "7 3"]
    assert ["checked" in box for box in page.attributes("input")] == [True, False]
    assert "removed share of pixels" in html and "Dotted: the best possible order" in html
    assert "Dotted" not in curve_chart(CURVES["sparsification"], {"b": runs["b"]}, looks)


@pytest.mark.parametrize("curve", [Curve([], []), Curve([1.0], [0.25]), Curve([0.0, 1.0], [0.0, 0.0])])
def test_curves_may_be_short_or_flat(curve):
    Page(curve_chart(CURVES["risk_coverage"], {"a": curve}, {"a": Style("r", Look(COLOURS[0]), True)}))


# --- which runs --------------------------------------------------------------------------------------------------


def test_runs_are_found_in_a_readers_order(folder):
    digits = [(run.name, run.record.provenance.seed) for run in find_runs([folder / "digits"])]
    assert digits == [
        *(("baseline", 0), ("DDN", 0), ("DDN", 1), ("distillation", 0), ("KD <half>", 0)),
        *(("MC-10", 0), ("MC-100", 0), ("ensemble of 2", 0)),
    ]
    # a run that is given twice once
    found = find_runs([folder / "streets" / "teacher", folder / "streets", folder / "scenes" / "DDN"])
    assert [run.name for run in found] == ["student", "DDN", "teacher"]


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^there is no run.json in .* or below it: evaluate a predictor first$"):
        find_runs([tmp_path])


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        ({"x/a": ("a", 0), "x/b": ("b", 0)}, ["a", "b"]),
        ({"x/a": ("a", 0), "y/a": ("a", 1)}, ["a", "a"]),  # seeds of one predictor
        # the same seed twice: two experiments, and their other seeds go with them
        ({"x/a/0": ("a", 0), "x/a/1": ("a", 1), "y/a": ("a", 0), "y/b": ("b", 0)}, ["a (x)", "a (x)", "a (y)", "b"]),
        ({"x/y/a": ("a", 0), "x/z/a": ("a", 0), "w": ("a", 0)}, ["a (x) (y)", "a (x) (z)", "a (w)"]),
        ({"v": ("a", 0), "v/w": ("a", 0)}, ["a (v)", "a (w)"]),  # one within the other
        ({"v": ("a + b", 0), "w": ("a + b", 0)}, ["a (v) + b", "a (w) + b"]),  # a predictor keeps its colour
    ],
)
def test_runs_of_one_name_and_seed_are_told_apart(runs, names):
    found = [Run(Path("/r", place), record(name, seed=seed), name) for place, (name, seed) in runs.items()]
    assert [run.name for run in distinct(found)] == names


def test_runs_of_several_data_sets_may_share_a_name():
    runs = [Run(Path("/r/x"), record(), "baseline"), Run(Path("/r/y"), record(data=SCENES), "baseline")]
    assert [run.name for run in distinct(runs)] == ["baseline", "baseline"]


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(page):
    check_self_contained(page)


def test_tasks_are_compared_apart(page):
    html = Page(page)
    assert headings(page) == [
        *("Results", "Calibration and risk", "Classes", "Runs"),
        *("Results", "Calibration and risk", "Runs"),
        *("Results", "Calibration and risk", "Classes", "Pictures", "Runs"),
        "Metrics",
    ]
    parts = re.findall(r'<p class="part">(.*?)</p>', page)
    assert list(dict.fromkeys(parts)) == [
        "Classification, digits",
        "Detection, scenes_test",
        "Segmentation, streets &lt;val&gt;",
    ]
    tables = [text_of(row[0]) for row in table_rows(page[page.index('id="detection-scenes_test-results"') :])]
    assert tables == ["predictor", "baseline one network, run once", "DDN forward passes: 1"]
    boxes = [box["data-run"] for box in html.attributes("input")]
    assert len(set(boxes)) == 7 + 2 + 2
    assert {"g0-6", "g1-1", "g2-1"} < set(boxes)


def test_names_are_text(page):
    html = Page(page)
    said = "".join(html.texts)
    assert "All <of> them" in said and "KD <half>" in said and "streets <val>" in said
    assert "image, truth, prediction & uncertainty" in said
    assert not {"of", "half", "val"} & {tag for tag, _ in html.elements}


@pytest.mark.parametrize("task", ["digits", "scenes", "streets"])
def test_what_is_explained_is_explained_once(folder, task):
    found = explanations(build_page(find_runs([folder / task]), "one"))
    assert len(found) > 5 and len(set(found)) == len(found)


def test_the_glossary_has_what_is_shown(page):
    words = text_of(page[page.index('<dl class="glossary">') :])
    assert "ECE ↓ expected calibration error" in words and "IoU ↑ intersection over union" in words
    assert "LaECE" not in words and "odd one" not in words


def test_one_task_needs_no_parts():
    html = build_page([Run(Path("/r"), record(), "baseline")], "One")
    assert headings(html) == ["Results", "Runs", "Metrics"]
    assert 'class="part"' not in html
    assert "One predictor of classification, measured on 800 images of digits." in html


def test_data_sets_of_one_name_are_told_apart():
    other = Data("digits", "ff" * 32, 800)
    runs = [Run(Path("/r/x"), record(), "baseline"), Run(Path("/r/y"), record(data=other), "baseline")]
    html = build_page(runs, "Two")
    assert "Classification, digits ab12ab12" in html and "Classification, digits ffffffff" in html


def test_the_command_writes_the_same_bytes_each_time(folder, tmp_path, capfd):
    for name in ("a", "b"):
        main([str(folder / "digits"), str(folder / "streets"), "-o", str(tmp_path / name / "r.html"), "--title", "T"])
    assert (tmp_path / "a" / "r.html").read_bytes() == (tmp_path / "b" / "r.html").read_bytes()
    assert f"Look at {tmp_path}/b/r.html, which compares 10 runs." in capfd.readouterr().out


def test_the_command_ends_with_a_sentence_where_there_is_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "uncertainty_core.report.__main__")  # as in a process of its own
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path), "-o", str(tmp_path / "r.html")])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("uncertainty_core.report", run_name="__main__")
    assert end.value.code == 2
    said = capfd.readouterr().err
    assert said.startswith("error: there is no run.json in ") and said.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


def test_style_and_script_are_installed(monkeypatch):
    monkeypatch.chdir(ROOT)
    build = setuptools.distutils.core.run_setup("setup.py", stop_after="init").get_command_obj("build_py")
    build.ensure_finalized()
    files = {package: sorted(names) for package, _, _, names in build.data_files}
    assert files["uncertainty_core.report"] == ["__init__.pyi", "script.js", "style.css"]


def test_records_are_checked_before_anything_is_drawn(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 9}')
    with pytest.raises(UserError, match="has format 9"):
        find_runs([tmp_path])
    assert RunRecord.read(record(data=STREETS).write(tmp_path).parent).provenance.data == STREETS


def headings_and_paragraphs(html):
    return [text_of(found) for found in re.findall(r"<(?:h\d|p)\b.*?</(?:h\d|p)>", html, re.DOTALL)]


def kept_images(shift):
    """Images whose predictions are right as often as their confidence has it, less `shift`."""
    generator = np.random.default_rng(0)
    confidence, chance = generator.uniform(0.5, 1, 400), generator.uniform(size=400)
    return ClassifiedImages([str(k) for k in range(400)], confidence, chance < confidence - shift)


def test_a_page_of_kept_images_has_intervals_and_says_what_was_found(tmp_path):
    for name, shift in (("baseline", 0.2), ("student", 0.0)):
        images = kept_images(shift)
        metrics = {key: value.item() for key, value in images.metrics(torch.ones(400, 1)).items()}
        record(name, metrics=metrics).write(tmp_path / name, images)
    page = build_page(find_runs([tmp_path]), "two")
    student = RunRecord.read(tmp_path / "student")
    low, high = student.intervals["ece"]
    assert f"[{low:.4f}, {high:.4f}]" in page
    # the first line of the page, and of the console
    first = "student against baseline, both one pass: ECE -"
    assert headings_and_paragraphs(page)[:2][1].startswith(first)
    assert comparison(find_runs([tmp_path])).startswith(first)
    assert "where the interval of its difference to the next one excludes 0" in page
    # resamples are paired, and of what the record has
    for resamples, message in (({"ece": torch.ones(3)}, "has 3 resamples of ece"), ({"no": torch.ones(3)}, "has no,")):
        write_images(tmp_path / "student", images, resamples)
        with pytest.raises(UserError, match=f"images.npz {message}.*: evaluate the predictor again"):
            build_page(find_runs([tmp_path]), "two")
    # one without images has no intervals, and a comparison with it has none
    record("other").write(tmp_path / "other")
    assert "student against" not in build_page(find_runs([tmp_path]), "three")
    assert comparison(find_runs([tmp_path])).startswith("| predictor ")
