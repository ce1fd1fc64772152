"""Scores of single predictions against plain loops."""

import math
import re

import pytest
import references as ref
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, dtypes, predicted, unit_values

from uncertainty_core.functional import scores

WITH_LABELS = {"brier": ref.brier, "nll_true": ref.nll_true}
WITHOUT_LABELS = {"nll_pred": ref.nll_pred, "entropy": ref.entropy}

# p = (1/2, 1/4, 1/4) and (1/8, 7/8, 0), true classes 0 and 2
HAND = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.875, 0.0]], dtype=torch.float64)
HAND_LABELS = torch.tensor([0, 2])
LOG2, LOG8_7 = math.log(2), math.log(8 / 7)


def close(dtype):
    """Relative error of a computation in float32, or in float64 for such input."""
    return {"rel": 1e-12, "abs": 1e-14} if dtype == torch.float64 else {"rel": 2e-6, "abs": 1e-6}


def per_sample(name, probabilities, labels, **kwargs):
    arguments = (probabilities, labels) if name in WITH_LABELS else (probabilities,)
    return getattr(scores, name)(*arguments, **kwargs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brier", [0.25 + 2 / 16, 1 / 64 + 49 / 64 + 1]),
        ("nll_true", [LOG2, math.inf]),
        ("nll_pred", [LOG2, LOG8_7]),
        # 1/2 log 2 + 2 · 1/4 log 4;  1/8 log 8 + 7/8 log 8/7
        ("entropy", [LOG2 / 2 + 2 * LOG2 / 2, 3 * LOG2 / 8 + 7 * LOG8_7 / 8]),
    ],
)
def test_hand_worked_scores(name, expected):
    values = per_sample(name, HAND, HAND_LABELS, reduction="none")
    assert values.tolist() == pytest.approx(expected, rel=1e-14)
    assert per_sample(name, HAND, HAND_LABELS).item() == pytest.approx(sum(expected) / 2, rel=1e-14)


@pytest.mark.parametrize("name", [*WITH_LABELS, *WITHOUT_LABELS])
@given(predicted(min_size=1))
def test_scores_equal_the_loop(name, drawn):
    probabilities, labels = drawn
    rows = probabilities.tolist()
    if name in WITH_LABELS:
        expected = [WITH_LABELS[name](row, label) for row, label in zip(rows, labels.tolist(), strict=True)]
    else:
        expected = [WITHOUT_LABELS[name](row) for row in rows]
    single = per_sample(name, probabilities, labels, reduction="none")
    mean = per_sample(name, probabilities, labels)
    assert single.tolist() == pytest.approx(expected, **close(probabilities.dtype))
    assert mean.item() == pytest.approx(ref.mean(expected), **close(probabilities.dtype))
    assert mean.dtype == torch.float64 and mean.shape == ()


@given(predicted(min_size=1))
def test_the_first_of_several_equal_classes_is_predicted(drawn):
    confidence, prediction = scores.top_label(drawn.probabilities)
    expected = [ref.confidence_and_prediction(row) for row in drawn.probabilities.tolist()]
    assert list(zip(confidence.tolist(), prediction.tolist(), strict=True)) == expected


@pytest.mark.parametrize("name", [*WITH_LABELS, *WITHOUT_LABELS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_are_scored_like_samples(name, dtype):
    generator = torch.Generator().manual_seed(3)
    images = (torch.randn(2, 5, 3, 4, generator=generator) * 3).softmax(1).to(dtype)
    labels = torch.randint(5, (2, 3, 4), generator=generator)
    pixels, flat = images.movedim(1, -1).reshape(-1, 5), labels.flatten()
    values = per_sample(name, images, labels, reduction="none")
    assert values.shape == (2, 3, 4)
    expected = per_sample(name, pixels, flat, reduction="none")
    assert values.flatten().tolist() == pytest.approx(expected.tolist(), **close(dtype))


def test_brier_keeps_its_digits_near_certainty():
    # 1 - 2⁻²⁰ and 2⁻²⁰ give 2 · 2⁻⁴⁰; the expansion sum p² - 2p + 1 would lose all of it in float32
    p = torch.tensor([[1 - 2.0**-20, 2.0**-20]])
    assert scores.brier(p, torch.tensor([0])).item() == pytest.approx(2.0**-39, rel=1e-6)


def test_a_true_class_of_probability_zero_has_infinite_nll():
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert scores.nll_true(p, torch.tensor([1, 0])).item() == math.inf
    assert scores.nll_true(p, torch.tensor([1, 0]), reduction="none").tolist() == [math.inf, pytest.approx(LOG2)]


def test_certainty_has_no_entropy_and_no_nll():
    p = torch.tensor([[0.0, 1.0, 0.0]])
    y = torch.tensor([1])
    values = [scores.entropy(p), scores.nll_pred(p), scores.nll_true(p, y), scores.brier(p, y)]
    assert [value.item() for value in values] == [0, 0, 0, 0]


@pytest.mark.parametrize("num_classes", [1, 2, 10, 1000])
def test_the_uniform_distribution_has_entropy_log_c(num_classes):
    p = torch.full((1, num_classes), 1 / num_classes, dtype=torch.float64)
    assert scores.entropy(p).item() == pytest.approx(math.log(num_classes), rel=1e-13, abs=0)


def test_scores_have_gradients():
    logits = torch.tensor([[0.5, -0.25, 1.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2])
    functions = (
        lambda x: scores.nll_true(x.softmax(1), labels),
        lambda x: scores.brier(x.softmax(1), labels),
        lambda x: scores.entropy(x.softmax(1)),
        lambda x: scores.nll_pred(x.softmax(1)),
    )
    for function in functions:
        assert torch.autograd.gradcheck(function, logits)


# MUPE


def test_hand_worked_mupe():
    # ((0.5 - 0.25)² + (1 - 0.5)²) / 2 = (1/16 + 1/4) / 2
    assert scores.mupe(torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.5])).item() == 5 / 32


@given(st.lists(st.tuples(unit_values(10), unit_values(10)), min_size=1, max_size=30), dtypes, dtypes)
def test_mupe_equals_the_loop(pairs, teacher_dtype, student_dtype):
    teacher = torch.tensor([t for t, _ in pairs], dtype=teacher_dtype)
    student = torch.tensor([s for _, s in pairs], dtype=student_dtype)
    assert scores.mupe(teacher, student).item() == pytest.approx(ref.mupe(teacher, student), rel=1e-12, abs=1e-15)


# Bad input


P, Y = torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([0, 1])


@pytest.mark.parametrize("name", [*WITH_LABELS, *WITHOUT_LABELS])
@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([[0.5, 0.5], [2.0, -1.0]], "probabilities must lie in [0, 1], but probabilities[1, 0] is 2.0; are these log"),
        ([[0.5, 0.5], [0.5, math.nan]], "probabilities must be finite, but probabilities[1, 1] is nan"),
        (
            [[0.5, 0.25], [0.5, 0.5]],
            "probabilities must sum to 1 over dimension 1, but probabilities[0, :] sums to 0.75",
        ),
        ([0.5, 0.5], "probabilities must have shape (N, C, ...)"),
        ([[1, 0], [0, 1]], "probabilities must be floating point, got torch.int64"),
    ],
)
def test_bad_probabilities_are_refused(name, probabilities, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        per_sample(name, torch.tensor(probabilities), Y)


@pytest.mark.parametrize("name", WITH_LABELS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], "labels must lie in [0, 2), but labels[1] is 2"),
        ([-1, 0], "labels must lie in [0, 2), but labels[0] is -1"),
        ([0.0, 1.0], "labels must be integers, got torch.float32"),
        ([0], "labels must have shape (2,) to go with probabilities (2, 2), got (1,)"),
        ([[0], [1]], "labels must have shape (2,) to go with probabilities (2, 2), got (2, 1)"),
    ],
)
def test_bad_labels_are_refused(name, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        per_sample(name, P, torch.tensor(labels))


@pytest.mark.parametrize("name", [*WITH_LABELS, *WITHOUT_LABELS])
def test_an_unknown_reduction_is_refused(name):
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none', got 'sum'"):
        per_sample(name, P, Y, reduction="sum")


def test_bad_confidences_of_mupe_are_refused():
    good = torch.tensor([0.5, 0.5])
    for bad, message in (
        ([0.5, 1.5], r"{}\[1\] is 1.5"),
        ([math.nan, 0.5], r"{}\[0\] is nan"),
    ):
        with pytest.raises(ValueError, match=message.format("teacher_confidence")):
            scores.mupe(torch.tensor(bad), good)
        with pytest.raises(ValueError, match=message.format("student_confidence")):
            scores.mupe(good, torch.tensor(bad))
    with pytest.raises(ValueError, match="teacher_confidence and student_confidence must have the same shape"):
        scores.mupe(good, good[:1])


@pytest.mark.parametrize("name", [*WITH_LABELS, *WITHOUT_LABELS])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 5), (2, 3, 0)])
def test_the_mean_of_nothing_is_nan_with_a_warning(name, shape):
    probabilities = torch.zeros(shape)
    labels = torch.zeros(shape[:1] + shape[2:], dtype=torch.int64)
    with pytest.warns(RuntimeWarning, match="NaN: there are no samples"):
        assert per_sample(name, probabilities, labels).isnan()
    assert per_sample(name, probabilities, labels, reduction="none").shape == labels.shape


def test_mupe_of_nothing_is_nan_with_a_warning():
    with pytest.warns(RuntimeWarning, match="NaN: there are no samples"):
        assert scores.mupe(torch.zeros(0), torch.zeros(0)).isnan()
