"""One record for all packages: what is written is what is read, and what is no record is refused in a sentence."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_runs import DIGITS, VERSIONS, record
from strict import strictly

from uncertainty_core import CalibrationMetric, ranking
from uncertainty_core.errors import UserError
from uncertainty_core.report.paper_rows import PAPER_ROWS, paper_row, paper_table
from uncertainty_core.report.run_record import (
    Curve,
    PaperRow,
    Picture,
    Provenance,
    Reliability,
    RunRecord,
    risk_coverage_curve,
    versions,
)

NUMBERS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf])
NAMES = st.text(min_size=1)
COLUMNS = st.dictionaries(NAMES, NUMBERS, max_size=3)
TRIPLES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=3)


def shares(values):
    """Within [0, 1], or NaN; for infinities, too."""
    return [abs(value) % 1 for value in values]


def alike(a, b):
    """Equal, where NaN equals NaN; records hold nothing that `repr` abbreviates."""
    return repr(a) == repr(b)


@given(
    metrics=COLUMNS,
    points=TRIPLES,
    per_class=st.dictionaries(NAMES, COLUMNS, max_size=2),
    seed=st.none() | st.integers(0),
    paper=st.none() | st.builds(PaperRow, NAMES, COLUMNS, st.dictionaries(NAMES, COLUMNS, max_size=1)),
)
def test_what_is_written_is_read(tmp_path_factory, metrics, points, per_class, seed, paper):
    folder = tmp_path_factory.getbasetemp() / "roundtrip"
    x, y, z = map(list, zip(*points, strict=True)) if points else ([], [], [])
    written = RunRecord(
        name="Käthe",
        task="detection",
        passes=3,
        metrics=metrics,
        provenance=Provenance("python -m x 'a b'", seed, VERSIONS, DIGITS, 0.1),
        reliability=Reliability([k / len(x) for k in range(len(x) + 1)], [2] * len(x), shares(y), shares(z))
        if x
        else None,
        curves={"with": Curve(x, y, z), "without": Curve(x, y)},
        per_class=per_class,
        paper_row=paper,
    )
    assert written.write(folder) == folder / "run.json"
    assert alike(RunRecord.read(folder), written)
    strictly((folder / "run.json").read_text(encoding="utf-8"))
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_the_least_that_a_record_holds(tmp_path):
    record().write(tmp_path / "new" / "folder")
    assert RunRecord.read(tmp_path / "new" / "folder") == record()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"run.json is damaged \(.*\): evaluate the predictor again$"),
        ("[]", "run.json is damaged"),
        ("{}", r"run.json has format unknown"),
        ('{"format": 2}', r"run.json is damaged \(name is missing\)"),
        ('{"format": 1, "anything": 3}', r"run.json has format 1, this version reads format 2: evaluate again$"),
    ],
)
def test_what_is_no_record_is_refused(content, said, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=said):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "regression"},
        {"metrics": {"ece": "small"}},
        {"extra": 1},
        {"curves": {"c": {"x": [1.0], "y": [], "oracle": None}}},
        {"curves": {"c": {"x": [1.0], "y": [1.0], "oracle": [1.0, 2.0]}}},
        {"reliability": {"edges": [0, 1], "count": [], "mean_confidence": [], "success_frequency": []}},
        {"per_class": [1]},
        {"passes": 0},
        {"passes": True},
        {"passes": "1"},
        {"metrics": {"ece": True}},
        {"metrics": {"ece": "0.5"}},
        {"metrics": {"ece": 10**400}},
        {"pictures": [{"path": "../secret.png", "caption": ""}]},
        {"pictures": [{"path": "/secret.png", "caption": ""}]},
        {"reliability": {"edges": [0, 1], "count": [-1], "mean_confidence": [0], "success_frequency": [0]}},
        {"reliability": {"edges": [1, 0], "count": [1], "mean_confidence": [0], "success_frequency": [0]}},
        {"reliability": {"edges": [0, 1], "count": [1], "mean_confidence": [2], "success_frequency": [0]}},
    ],
)
def test_a_record_of_other_content_is_damaged(change, tmp_path):
    path = record().write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="is damaged"):
        RunRecord.read(tmp_path)


def test_an_absent_record_is_said(tmp_path):
    with pytest.raises(UserError, match=r"there is no run.json in .*: evaluate the predictor first$"):
        RunRecord.read(tmp_path)


def test_pictures_must_be_there_first(tmp_path):
    with_picture = record(pictures=[Picture("a/b.png", "x")])
    with pytest.raises(ValueError, match=r"no picture a/b.png in"):
        with_picture.write(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").touch()
    with_picture.write(tmp_path)
    assert RunRecord.read(tmp_path).pictures == [Picture("a/b.png", "x")]


def test_bins_of_a_measurement():
    metric = CalibrationMetric(2, num_bins=4)
    # confidences 0.625, 0.875 and 0.75; right, wrong, right; edges belong to the bin on their left
    metric.update(torch.tensor([[0.625, 0.375], [0.125, 0.875], [0.75, 0.25]]), torch.tensor([0, 0, 0]))
    bins = Reliability.of(metric.result())
    assert bins.edges == [0, 0.25, 0.5, 0.75, 1]
    assert bins.count == [0, 0, 2, 1]
    assert alike(bins.mean_confidence, [math.nan, math.nan, 0.6875, 0.875])
    assert alike(bins.success_frequency, [math.nan, math.nan, 1.0, 0.0])


def test_risk_coverage_and_its_oracle():
    # from certain to uncertain: right, wrong, right, right, wrong
    errors = ranking(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]), torch.tensor([0, 1, 0, 0, 1]).bool())
    curve = risk_coverage_curve(errors)
    assert curve.x == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve.y == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4, 2 / 5])
    # the three that are right first, then the two that are not
    assert curve.oracle == pytest.approx([0, 0, 0, 1 / 4, 2 / 5])


def test_long_curves_are_thinned():
    generator = torch.Generator().manual_seed(0)
    errors = ranking(torch.randperm(5000, generator=generator), torch.rand(5000, generator=generator) < 0.3)
    full, thin = risk_coverage_curve(errors, points=10**6), risk_coverage_curve(errors, points=50)
    assert len(full.x) == 5000
    assert len(thin.x) == 50
    assert (thin.x[-1], thin.y[-1]) == (1.0, full.y[-1])
    steps = [b - a for a, b in zip(thin.x, thin.x[1:], strict=False)]
    assert max(steps) < 1.1 / 49
    assert set(zip(thin.x, thin.y, strict=True)) <= set(zip(full.x, full.y, strict=True))


@pytest.mark.parametrize(
    ("started", "command"),
    [
        (["/some/bin/python3", "-m", "tool", "name=a b"], "python -m tool 'name=a b'"),
        (["/some/bin/python", "/some/bin/distilled-uncertainty", "train-net"], "distilled-uncertainty train-net"),
    ],
)
def test_provenance_of_this_process(started, command, monkeypatch):
    monkeypatch.setattr("sys.orig_argv", started)
    found = Provenance.of_this_process(None, DIGITS, 2.0, mmseg="1.4.2")
    assert found.command == command
    assert found.versions == versions() | {"mmseg": "1.4.2"}
    assert {"python", "torch", "numpy", "distilled-uncertainty"} == versions().keys()


# --- what the papers print ---------------------------------------------------------------------------------------


def test_rows_of_the_papers():
    assert paper_row("DDN/CIFAR10/DDN").metrics["msce"] == 0.000927  # printed times 100
    assert paper_row("DDN/COCO/R101/DDN").metrics["AR100"] == 43.3
    assert paper_row("DD/CIFAR10 Quick/distillation, test").metrics == {"risk": 0.1723}
    assert "DD/MNIST LeNet/distillation, test" not in PAPER_ROWS  # which the paper has not
    assert paper_row("KD/MNIST/KD-SN3").metrics["mupe"] == 0.0016
    assert list(paper_table("DD/MNIST LeNetAll")) == ["baseline", "MC-100", "distillation"]
    assert paper_table("DD/MNIST LeNetAll")["baseline"].metrics == {"risk": 0.0051}


@pytest.mark.parametrize("name", ["teacher", "student", "Holder, teacher", "Holder, student"])
def test_class_wise_values_have_the_mean_that_is_printed(name):
    row = paper_row(f"DUDES/Cityscapes/{name}")
    for column, mean, digit in (("IoU", "mIoU", 0.1), ("uncertainty", "mUnc", 0.001)):
        values = row.per_class[column].values()
        assert len(values) == 19
        assert sum(values) / 19 == pytest.approx(row.metrics[mean], abs=0.55 * digit)  # the values are rounded, too


def test_an_unknown_row_is_answered_with_its_neighbours():
    with pytest.raises(UserError, match=r"^no paper has a row 'DDN/CIFAR10/MC-1'; near it are DDN/CIFAR10/MC-10, "):
        paper_row("DDN/CIFAR10/MC-1")
