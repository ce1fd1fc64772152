"""Sparsification curves from counts of levels, against sorting and counting."""

import math
import re

import pytest
import references as ref
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty_core.functional.sparsification import (
    NUM_LEVELS,
    PixelLevels,
    ause,
    certainty,
    joint_levels,
    level_values,
    pixel_levels,
    rank_correlation,
    sparsification,
    uncertainty_level,
)

CLOSE = {"rel": 1e-12, "abs": 1e-13}
SHARES = [k / 20 for k in range(20)]


@st.composite
def pixels(draw, num_classes=4):
    """Predicted and true classes of a multiple of twenty pixels, so that each share is a whole number of them."""
    size = draw(st.sampled_from([20, 40, 60]))
    classes = st.lists(st.integers(0, num_classes - 1), min_size=size, max_size=size)
    return draw(classes), draw(classes)


def curves(prediction, label, uncertainty, removed, num_classes=4):
    levels = pixel_levels(torch.tensor(prediction), torch.tensor(label), uncertainty, num_classes)
    return sparsification(levels, removed)


def test_hand_made_levels():
    levels = pixel_levels(
        prediction=torch.tensor([0, 1, 1, 0, 1]),
        label=torch.tensor([0, 0, 1, 1, 255]),
        uncertainty=torch.tensor([0.25, 0.5, 1.0, 1.0, 0.5]),
        num_classes=2,
        ignore_index=255,
    )
    low, middle, high = uncertainty_level(torch.tensor([0.25, 0.5, 1.0])).tolist()
    # per class 0 and 1; 0 taken for 1 is wrong for both
    assert levels.right[low].tolist() == [1, 0] and levels.wrong[low].tolist() == [0, 0]
    assert levels.right[middle].tolist() == [0, 0] and levels.wrong[middle].tolist() == [1, 1]
    assert levels.right[high].tolist() == [0, 1] and levels.wrong[high].tolist() == [1, 1]
    assert levels.void.nonzero().tolist() == [[middle]] and levels.void.sum() == 1
    assert levels.right.sum() == 2 and levels.wrong.sum() == 4
    assert {counts.dtype for counts in levels} == {torch.int64}


@given(pixels(), st.data())
def test_levels_equal_the_loop(drawn, data):
    prediction, label = drawn
    values = st.lists(st.integers(0, 10).map(lambda k: k / 10), min_size=len(label), max_size=len(label))
    uncertainty = torch.tensor(data.draw(values))
    got = pixel_levels(torch.tensor(prediction), torch.tensor(label), uncertainty, 4)
    level = uncertainty_level(uncertainty).tolist()
    for k in set(level):
        mine = [i for i, v in enumerate(level) if v == k]
        matrix = ref.confusion_by_loop([prediction[i] for i in mine], [label[i] for i in mine], 4)
        right = [matrix[c][c] for c in range(4)]
        assert got.right[k].tolist() == right
        union = [sum(matrix[c]) + sum(row[c] for row in matrix) - matrix[c][c] for c in range(4)]
        assert (got.right + got.wrong)[k].tolist() == union


def test_hand_worked_iou():
    # class 0: 3 found, 1 missed, 1 falsely had; class 1: 2, 1, 1; class 2 does not occur
    levels = PixelLevels(torch.tensor([[3, 2, 0]]), torch.tensor([[2, 2, 0]]), torch.tensor([0]))
    assert levels.class_iou.tolist() == pytest.approx([3 / 5, 1 / 2, math.nan], nan_ok=True)
    assert sparsification(levels, [0.0])[0].item() == pytest.approx((3 / 5 + 1 / 2) / 2, rel=1e-15)
    # class 2 is predicted once in place of class 0, never right: its IoU of 0 counts
    levels.wrong.copy_(torch.tensor([[3, 2, 1]]))
    assert sparsification(levels, [0.0])[0].item() == pytest.approx((3 / 6 + 1 / 2 + 0) / 3, rel=1e-15)


def test_a_hand_worked_sparsification():
    # four pixels from certain to uncertain: 0 as 0, 1 as 1, 1 as 0 (wrong), 1 as 1
    prediction, label = [0, 1, 0, 1], [0, 1, 1, 1]
    removed = [0.0, 0.25, 0.5, 0.75]
    curve, oracle = curves(prediction, label, torch.tensor([0.1, 0.2, 0.3, 0.4]), removed, num_classes=2)
    # all: class 0 1/2, class 1 2/3; three: 1/2 and 1/2; two: 1 and 1; one: class 0 alone, 1
    assert curve.tolist() == pytest.approx([7 / 12, 1 / 2, 1, 1], rel=1e-14)
    # the oracle drops the wrong pixel first
    assert oracle.tolist() == pytest.approx([7 / 12, 1, 1, 1], rel=1e-14)
    # the gap is 1/2 at .25 and 0 beside it: a triangle of base 1/2
    assert ause(curve, oracle, removed).item() == pytest.approx(1 / 8, rel=1e-14)


@given(pixels(), st.randoms())
def test_sparsification_equals_the_full_sort(drawn, random):
    prediction, label = drawn
    order = list(range(len(label)))
    random.shuffle(order)
    uncertainty = [(rank + 0.5) / len(order) for rank in order]  # distinct, and in distinct bins
    curve, oracle = curves(prediction, label, torch.tensor(uncertainty, dtype=torch.float64), SHARES)
    expected = ref.sparsification_by_sort(prediction, label, uncertainty, 4, SHARES)
    expected_oracle = ref.sparsification_oracle(prediction, label, 4, SHARES)
    assert curve.tolist() == pytest.approx(expected, **CLOSE)
    assert oracle.tolist() == pytest.approx(expected_oracle, **CLOSE)
    area = ref.ause(expected, expected_oracle, SHARES)
    assert ause(curve, oracle, SHARES).item() == pytest.approx(area, **CLOSE)


@given(pixels(), st.data())
def test_tied_pixels_leave_their_expected_share(drawn, data):
    prediction, label = drawn
    level = data.draw(st.lists(st.integers(0, 3), min_size=len(label), max_size=len(label)))
    removed = [0.0, 0.1, 0.125, 0.5, 0.72, 0.99]
    curve, _ = curves(prediction, label, torch.tensor([v / 4 for v in level]) + 0.1, removed)
    assert curve.tolist() == pytest.approx(ref.sparsification_with_ties(prediction, label, level, 4, removed), **CLOSE)


@pytest.mark.parametrize(
    ("size", "share"), [(20, 0.7), (20, 0.95), (100, 0.29), (100, 0.57), (100, 0.55), (7000, 0.07)]
)
def test_a_removed_class_leaves_no_dust(size, share):
    # (1 - 0.7) · 20 is a little more than 6 in floating point, and 100 - 0.29 · 100 a little more than 71. All that is
    # kept is class 0; what is left over of the next pixel is nothing, and must not count as a class 1 with an IoU of 0.
    kept = size - round(size * share)
    right, wrong = torch.zeros(2, size, 2, dtype=torch.int64)  # each pixel has a level of its own
    right[:kept, 0] = 1
    wrong[kept:] = 1
    curve, oracle = sparsification(PixelLevels(right, wrong, torch.zeros(size)), [share])
    assert curve.tolist() == oracle.tolist() == [1]


@pytest.mark.parametrize("size", [20, 40, 100, 1000, 123_460, 19_752_583_560])
def test_a_share_of_whole_pixels_leaves_no_dust(size):
    # Of 20 equal parts the k-th is of class k and taken for class k + 1, but for the first, which is right. While n
    # parts are left, the classes 0 to n occur, of which class 0 alone has an IoU, of 1; when all are left, the last
    # part is taken for class 0 and halves it; and the first part alone is perfect.
    right, wrong = torch.zeros(2, 20, 20, dtype=torch.int64)
    right[0, 0] = size // 20
    for k in range(1, 20):
        wrong[k, [k, (k + 1) % 20]] = size // 20
    expected = [0.5 / 20, *(1 / (n + 1) for n in range(19, 1, -1)), 1]
    curve, _ = sparsification(PixelLevels(right, wrong, torch.zeros(20)), SHARES)
    assert curve.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("removed", [[0.0, 1.0], [-0.05], [math.nan]])
def test_shares_to_remove_are_below_one(removed):
    levels = PixelLevels(torch.ones(2, 2), torch.ones(2, 2), torch.ones(2))
    with pytest.raises(ValueError, match=re.escape("removed must hold shares in [0, 1), got [")):
        sparsification(levels, removed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uncertainty": [0.5, 1.5]}, "uncertainty must lie in [0, 1], but uncertainty[1] is 1.5"),
        ({"uncertainty": [math.nan, 1.5]}, "uncertainty must be finite, but uncertainty[0] is nan"),
        ({"uncertainty": [1, 0]}, "uncertainty must be floating point, got torch.int64"),
        ({"prediction": [0]}, "prediction and label must have the same shape, got (1,) and (2,)"),
        ({"label": [0, 1, 1]}, "prediction and label must have the same shape, got (2,) and (3,)"),
        ({"prediction": [0, 2]}, "prediction must lie in [0, 2), but prediction[1] is 2"),
        ({"prediction": [0.0, 1.0]}, "prediction must be integers, got torch.float32"),
        ({"label": [-1, 0]}, "label must lie in [0, 2), but label[0] is -1"),
    ],
)
def test_bad_pixels_are_refused(change, message):
    arguments = {"prediction": [0, 1], "label": [0, 1], "uncertainty": [0.5, 0.5]} | change
    tensors = {name: torch.tensor(values) for name, values in arguments.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        pixel_levels(**tensors, num_classes=2)


def test_no_pixels_leave_nan_curves_and_a_warning():
    levels = pixel_levels(*[torch.zeros(0, dtype=torch.int64)] * 2, torch.zeros(0), 3)
    with pytest.warns(RuntimeWarning, match="sparsification is NaN: there are no pixels"):
        curve, oracle = sparsification(levels, [0.0, 0.5])
    assert curve.isnan().all() and oracle.isnan().all()


def test_a_single_pixel_is_never_removed_whole():
    for curve in curves([1], [1], torch.tensor([1.0]), [0.0, 0.5, 0.99]):
        assert curve.tolist() == [1, 1, 1]


def test_ause_equals_the_trapezoids():
    curve, oracle = torch.tensor([0.5, 0.6, 0.5]).double(), torch.tensor([0.5, 0.8, 1.0]).double()
    removed = [0.0, 0.25, 0.75]
    # (0 + .2)/2 · .25 + (.2 + .5)/2 · .5
    assert ause(curve, oracle, removed).item() == pytest.approx(0.025 + 0.175, rel=1e-6)
    assert ause(oracle, oracle, removed).item() == 0


# Certain and accurate, and the order of two maps


def test_certainty_by_hand():
    # mean uncertainty 0.25: three pixels at 0.125 are certain, of which one is wrong; of two at 0.4375, one is wrong
    uncertainty = torch.tensor([0.125, 0.125, 0.125, 0.4375, 0.4375])
    prediction, label = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 0, 1])
    assert [value.item() for value in certainty(pixel_levels(prediction, label, uncertainty, 2))] == pytest.approx(
        [2 / 3, 1 / 2, (2 + 1) / 5]
    )


def test_certainty_of_right_pixels_alone_leaves_no_wrong_ones():
    same = torch.tensor([0, 1])
    found = certainty(pixel_levels(same, same, torch.tensor([0.5, 0.5]), 2))
    assert found.accurate_if_certain == 1 and found.uncertain_if_inaccurate.isnan() and found.pavpu == 1


def test_values_of_levels_are_the_lowest_in_them():
    values = level_values()
    assert values[0] == 0 and values[-1] == 1
    assert torch.equal(uncertainty_level(values.float()), torch.arange(NUM_LEVELS, dtype=torch.int32))
    below = torch.nextafter(values[1:].float(), torch.tensor(0.0))
    assert torch.equal(uncertainty_level(below), torch.arange(NUM_LEVELS - 1, dtype=torch.int32))


def test_rank_correlation_is_that_of_scipy():
    generator = torch.Generator().manual_seed(0)
    # powers of two, each of which has a rank of its own
    maps = [0.5 ** torch.randint(5, (200,), generator=generator) for _ in range(2)]
    maps[1] = torch.where(torch.rand(200, generator=generator) < 0.5, maps[0], maps[1])
    expected = scipy.stats.spearmanr(*(values.numpy() for values in maps)).statistic
    joint = joint_levels(maps[0][:50], maps[1][:50]) + joint_levels(maps[0][50:], maps[1][50:])
    assert rank_correlation(joint).item() == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(joint_levels(maps[0], maps[0])).item() == pytest.approx(1)
    assert rank_correlation(joint_levels(maps[0], torch.ones(200))).isnan()
