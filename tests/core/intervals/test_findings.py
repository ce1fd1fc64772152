"""Which row is the best, and what a comparison found, from numbers that are known by hand."""

import torch

from uncertainty_core.catalog import CLASSIFICATION, metric
from uncertainty_core.intervals.comparing import Resampled
from uncertainty_core.intervals.findings import MeasuredRow, findings, places


def row(passes=1, noise=0.0, **values):
    """Resamples of `noise` to either side of the values."""
    spread = torch.tensor([-noise, 0.0, noise], dtype=torch.float64)
    return MeasuredRow(passes, Resampled(values, {name: value + spread for name, value in values.items()}))


def test_only_what_is_known_is_marked():
    ece = metric("ece")
    rows = {"a": row(ece=0.3), "b": row(ece=0.1), "c": row(ece=0.2), "MC-9": row(passes=9, ece=0.01)}
    assert places(ece, rows) == {"b": 1, "c": 2}
    # rows with several passes compete with each other
    assert places(ece, rows | {"MC-99": row(passes=99, ece=0.005)}) == {"b": 1, "c": 2, "MC-99": 1}
    # what prints alike is not marked
    assert places(ece, {"a": row(ece=0.10001), "b": row(ece=0.10002)}) == {}
    # c is 0.2 give or take 0.15, which may be less than b, or more than a
    assert places(ece, rows | {"c": row(noise=0.15, ece=0.2)}) == {}
    assert places(ece, rows | {"a": row(noise=0.15, ece=0.3)}) == {"b": 1}
    assert places(ece, {"b": rows["b"], "c": rows["c"]}) == {"b": 1}
    assert places(metric("accuracy"), {"a": row(accuracy=0.3), "b": row(accuracy=0.5)}) == {"b": 1}
    assert places(metric("passes"), rows) == places(metric("mce"), rows) == {}


def test_sentence_by_hand():
    rows = {
        "baseline": row(ece=0.1, accuracy=0.5, brier=0.4),
        "baseline + platt": row(ece=0.05, accuracy=0.5, brier=0.32),
        "baseline + beta": row(ece=0.05, accuracy=0.5, brier=0.2),
        "MC-10": row(passes=10, ece=0.01, accuracy=0.6, brier=0.1),
        "student": row(noise=0.012, ece=0.07, accuracy=0.52, brier=0.1),
    }
    # -0.03 of 0.1, give or take 0.0114 (95 % of the way to the outer resamples); 2 points of accuracy likewise
    assert findings(CLASSIFICATION, rows) == [
        "student against baseline, both one pass: ECE -30 % [-41, -19], Test acc. +2.0 [+0.9, +3.1]; "
        "against the best calibrator (baseline + beta): Brier -50 % [-56, -44]."
    ]
    assert findings(CLASSIFICATION, {"student": rows["student"]}) == []
