"""Every metric is declared, and docs/metrics.md agrees with the declarations."""

import re
from pathlib import Path

import pytest

from uncertainty_core.catalog import METRICS, SECTIONS, TASKS, brief, in_order, metric
from uncertainty_core.detection.calibration import SCORES as DETECTION_SCORES
from uncertainty_core.functional import BIN_METRICS, FINE_BIN_METRICS
from uncertainty_core.metrics.calibration import SCORES

ROWS = re.findall(
    r"^\| (`[^|]*) \|.*\| ([^|]*)(lower|higher|neither)[^|]*\|",
    (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)
DOCUMENTED = {key: better for names, _, better in ROWS for key in re.findall(r"`(\w+)`", names)}


def test_every_metric_that_is_computed_is_declared():
    assert {*BIN_METRICS, *FINE_BIN_METRICS, *SCORES, *DETECTION_SCORES} <= METRICS.keys()


def test_keys_are_declared_once():
    assert len(METRICS) == sum(map(len, SECTIONS.values()))


@pytest.mark.parametrize("section", ["calibration", "detections", "boxes", "scores", "ranking"])
def test_the_page_of_metrics_has_each_with_its_direction(section):
    counts = {"n", "classes", "nll_clamped"}
    expected = {declared.key: declared.better or "neither" for declared in SECTIONS[section]}
    expected = {key.removeprefix("error_"): better for key, better in expected.items() if key not in counts}
    assert {key: DOCUMENTED.get(key) for key in expected} == expected


def test_short_tables_are_in_order_and_leave_out_what_is_not_declared():
    keys = ["new", "brier", "AP", "ece", "passes", "ece"]
    assert [found.key for found in in_order(keys)] == ["passes", "AP", "ece", "brier", "new"]
    assert [[found.key for found in brief(task, keys)] for task in TASKS] == [
        ["passes", "ece", "brier"],
        ["passes", "AP", "brier"],
        ["passes", "ece", "brier"],
    ]


def test_heads_hold_the_unit():
    assert (metric("accuracy").head, metric("ece").head) == ("Test acc. %", "ECE")
