"""Names of rows: what is read off them, how they stand and how they are drawn."""

import pytest

from uncertainty_core.colours import COLOURS
from uncertainty_core.roles import (
    BASELINE,
    ENSEMBLE,
    OTHER,
    PASSES,
    STUDENT,
    TEACHER,
    calibrated_name,
    drawn_at_first,
    ensemble_name,
    is_calibrated,
    looks,
    meaning,
    order,
    output_name,
    passes_name,
    plain_name,
    predictor_name,
    ranked_name,
    role_of,
    short_names,
    student_name,
)

SMALL, LARGE = student_name("ddn, small"), student_name("ddn_R50")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("baseline", BASELINE),
        ("baseline (x)", BASELINE),
        (calibrated_name("baseline", "platt"), BASELINE),
        ("baseline_r50", OTHER),
        (SMALL, STUDENT),
        (ranked_name(SMALL, "entropy"), STUDENT),
        ("students", OTHER),
        (passes_name(10), PASSES),
        (passes_name(10, SMALL), PASSES),
        (ensemble_name(2), ENSEMBLE),
        ("teacher", TEACHER),
        ("my detector", OTHER),
        ("", OTHER),
    ],
)
def test_the_role_is_read_off_the_name(name, role):
    assert role_of(name) is role


def test_a_name_comes_apart():
    name = calibrated_name(SMALL, "class-wise-isotonic-iou")
    assert (name, is_calibrated(name), is_calibrated(SMALL)) == (f"{SMALL} + class-wise-isotonic-iou", True, False)
    assert plain_name(name) == predictor_name(name) == predictor_name(ranked_name(SMALL, "entropy")) == SMALL
    assert plain_name(ranked_name(SMALL, "entropy")) == f"{SMALL}, entropy of its softmax"
    assert meaning(name, 1) == "calibrated on held-out images"
    assert meaning(ranked_name(SMALL, "entropy"), 1) == "judged by the entropy of its softmax"
    assert predictor_name(output_name(SMALL, "error")) == SMALL
    assert meaning(output_name(SMALL, "error"), 1) == "judged by the output error"
    assert meaning("MC-1000", 1000) == "mean of 1,000 passes with dropout"


def test_one_pass_stands_before_several_and_rows_of_a_predictor_together():
    rows = {
        "baseline": 1,
        "baseline, entropy of its softmax": 1,
        "baseline + platt": 1,
        SMALL: 1,
        f"{SMALL} + platt": 1,
        LARGE: 1,
        "my detector": 1,
        f"MC-2 of {SMALL}": 2,
        "MC-2": 2,
        "MC-10": 10,
        "MC-10 + platt": 10,
        "ensemble of 2": 2,
        "teacher": 3,
    }
    found = sorted(rows, key=lambda name: order(name, rows[name]))
    assert found == [*list(rows)[:7], "MC-2", f"MC-2 of {SMALL}", *list(rows)[9:]]


def test_the_only_student_is_called_just_that():
    names = ["baseline", SMALL, f"{SMALL} + platt", f"MC-2 of {SMALL}"]
    assert list(short_names(names).values()) == ["baseline", "student", "student + platt", "MC-2 of student"]
    assert set(short_names([*names, LARGE]).values()) == {*names, LARGE}
    assert short_names(["ddn_small"]) == {"ddn_small": "ddn_small"}  # of an older record


def test_a_role_has_one_colour_in_every_comparison():
    for names in (["baseline", "student", "MC-10"], ["MC-10", "MC-2", "other", "student", "baseline"]):
        found = looks(names)
        colours = [found[name].colour for name in ("baseline", "student", "MC-10")]
        assert colours == [COLOURS[0], COLOURS[1], COLOURS[2]]
    assert looks(["MC-2", "MC-10"])["MC-10"].colour == COLOURS[2]  # of most passes
    assert looks("ab")["a"].colour == COLOURS[0]


def test_rows_of_a_predictor_share_its_colour_and_mark():
    found = looks(["baseline", "baseline + platt", "baseline, entropy of its softmax", "a"])
    assert {(look.colour, look.mark) for name, look in found.items() if name != "a"} == {(COLOURS[0], 0)}
    assert [look.dashes for look in found.values()] == [0, 1, 2, 0]


def test_many_predictors_are_told_apart_by_their_marks():
    found = looks(map(str, range(30))).values()
    assert len({(look.colour, look.mark % 6) for look in found}) == 30


def test_charts_begin_with_what_stands_for_others():
    names = ["baseline", "baseline + platt", SMALL, "MC-2", "MC-10", f"MC-2 of {SMALL}", "ensemble of 2"]
    assert drawn_at_first(names) == ["baseline", SMALL, "MC-10", "ensemble of 2"]
    assert len(drawn_at_first("abcdefgh")) == len(COLOURS)
