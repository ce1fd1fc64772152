"""Scores straight from logits: those of the softmax in float64, whatever the layout."""

import math

import pytest
import references as ref
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty_core import CalibrationMetric
from uncertainty_core.functional.logit_scores import check_logits, logit_confidence, logit_entropy, logit_scores
from uncertainty_core.metrics.calibration import SCORES
from uncertainty_core.streaming.chunks import pieces

NAMES = ("confidence", "brier", "nll_true", "nll_pred", "entropy")


def drawn(num_classes, size=200, spread=5.0, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(1, num_classes, size, generator=generator) * spread).to(dtype)
    return logits, torch.randint(num_classes, (1, size), generator=generator)


@pytest.mark.parametrize("num_classes", [1, 2, 3, 7, 19])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_those_of_the_softmax(num_classes, dtype):
    logits, labels = drawn(num_classes, dtype=dtype)
    scores = logit_scores(logits, labels)
    rows, truth = logits[0].T.double().softmax(1).tolist(), labels[0].tolist()
    expected = {
        "confidence": [max(row) for row in rows],
        "brier": [ref.brier(row, label) for row, label in zip(rows, truth, strict=True)],
        "nll_true": [ref.nll_true(row, label) for row, label in zip(rows, truth, strict=True)],
        "nll_pred": [ref.nll_pred(row) for row in rows],
        "entropy": [ref.entropy(row) for row in rows],
    }
    close = {"rel": 1e-5, "abs": 1e-6} if dtype == torch.float32 else {"rel": 1e-11, "abs": 1e-13}
    for name in NAMES:
        assert getattr(scores, name)[0].tolist() == pytest.approx(expected[name], **close), name
    assert torch.equal(scores.success, logits.argmax(1) == labels)
    assert logit_confidence(logits)[0].tolist() == pytest.approx(expected["confidence"], **close)
    assert logit_entropy(logits)[0].tolist() == pytest.approx(expected["entropy"], **close)


def test_hand_worked_logits():
    # logits log 1, log 1, log 2 of pixel 0: p = 1/4, 1/4, 1/2
    logits = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64).log().view(1, 3, 1)
    scores = logit_scores(logits, torch.tensor([[0]]))
    assert scores.confidence.item() == pytest.approx(1 / 2)
    assert not scores.success.item()
    assert scores.brier.item() == pytest.approx(9 / 16 + 1 / 16 + 1 / 4)
    assert scores.nll_true.item() == pytest.approx(math.log(4))
    assert scores.nll_pred.item() == pytest.approx(math.log(2))
    assert scores.entropy.item() == pytest.approx(math.log(4) / 2 + math.log(2) / 2)


@given(st.lists(st.lists(st.integers(-2, 2), min_size=4, max_size=4), min_size=1, max_size=20), st.data())
def test_the_first_of_equal_logits_is_predicted(rows, data):
    labels = torch.tensor([data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))])
    logits = torch.tensor(rows, dtype=torch.float32).T.unsqueeze(0)
    first = [row.index(max(row)) for row in rows]
    assert logit_scores(logits, labels).success[0].tolist() == [f == y for f, y in zip(first, labels[0], strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_far_apart(dtype):
    # certain and right, certain and wrong, of probability zero, and zeros beside a tie
    inf = math.inf
    rows = [[500, 0, -500], [500, 0, -500], [0, -inf, -inf], [-inf, 3, 3]]
    logits = torch.tensor(rows, dtype=dtype).T.unsqueeze(0)
    scores = logit_scores(logits, torch.tensor([[0, 2, 1, 1]]))
    assert scores.nll_true[0].tolist() == pytest.approx([0, 1000, inf, math.log(2)])
    assert scores.brier[0].tolist() == pytest.approx([0, 2, 2, 0.5])
    assert scores.entropy[0].tolist() == pytest.approx([0, 0, 0, math.log(2)], abs=1e-7)
    assert scores.success[0].tolist() == [True, False, False, True]


def updated(logits, labels, predictions=None, parts=(slice(None),), **options):
    metric = CalibrationMetric(logits.shape[1], ignore_index=255, **options)
    for part in parts:
        metric.update_logits(logits[part], labels[part], None if predictions is None else predictions[part])
    return metric


def image(num_classes=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(2, num_classes, 9, 11, generator=generator) * 3).to(dtype)
    labels = torch.randint(num_classes, (2, 9, 11), generator=generator)
    return logits, labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.2, 255)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_metric_says_the_same_of_logits_as_of_their_softmax(dtype):
    logits, labels = image(dtype=dtype)
    metric = CalibrationMetric(5, ignore_index=255, class_wise=True)
    # of half precision the softmax is taken in float32
    metric.update(logits.to(torch.promote_types(dtype, torch.float32)).softmax(1), labels)
    computed = updated(logits, labels, class_wise=True).compute()
    for name, value in metric.compute().items():
        assert computed[name].item() == pytest.approx(value.item(), rel=1e-6, abs=1e-6), name


def states(metric):
    return metric.metric_state


def assert_identical(got, expected):
    assert all(torch.equal(got.metric_state[name], state) for name, state in expected.metric_state.items())


@pytest.mark.parametrize("num_classes", [2, 3, 8, 19])
@pytest.mark.parametrize("layout", ["rows", "channels last", "image by image", "reversed", "with predictions"])
def test_the_same_bits_in_any_order_and_layout(num_classes, layout):
    logits, labels = image(num_classes)
    once = updated(logits, labels)
    if layout == "rows":
        again = updated(logits.movedim(1, -1).reshape(-1, num_classes), labels.flatten())
    elif layout == "channels last":
        again = updated(logits.to(memory_format=torch.channels_last), labels)
    elif layout == "image by image":
        again = updated(logits, labels, parts=(slice(1, 2), slice(0, 1)))
    elif layout == "reversed":
        again = updated(logits.flip(3), labels.flip(2))
    else:
        again = updated(logits, labels, logits.argmax(1))
    assert_identical(again, once)


def test_an_image_is_cut_into_pieces_that_hold_all_of_it(monkeypatch):
    logits, labels = image()
    once = updated(logits, labels)
    monkeypatch.setattr("uncertainty_core.streaming.chunks.PIECE", 35)  # seven pixels
    assert [piece.shape[2] for piece, _ in pieces(logits[:1], labels[:1])] == [7] * 14 + [1]
    assert_identical(updated(logits, labels), once)
    assert torch.equal(logit_entropy(logits).flatten(1)[:, :7], logit_entropy(logits.flatten(2)[..., :7]))


def test_only_the_scores_that_are_asked_for():
    logits, labels = image()
    every, few = updated(logits, labels).compute(), updated(logits, labels, scores=("nll_true", "brier")).compute()
    assert few == {name: value for name, value in every.items() if name not in SCORES or name in ("nll_true", "brier")}
    with pytest.raises(ValueError, match=f"scores must be some of {', '.join(SCORES)}"):
        CalibrationMetric(2, scores=("nll",))


def test_known_predictions_decide_what_is_right():
    logits, labels = image()
    wrong = torch.zeros_like(labels).masked_fill(labels == 0, 1)
    assert updated(logits, labels, wrong).compute()["accuracy"].item() == 0


def test_compute_forgets_what_it_said_before_an_update():
    logits, labels = image()
    metric = updated(logits[:1], labels[:1])
    metric.compute()
    metric.update_logits(logits[1:], labels[1:])
    assert metric.compute() == updated(logits, labels).compute()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: x[1, 2, 3].fill_(math.nan), r"largest logit must be finite, but that of logits\[1, :, 3, 0\] is"),
        (lambda x, y: x[0, :, 1, 1].fill_(-math.inf), r"that of logits\[0, :, 1, 1\] is -inf"),
        (lambda x, y: x[0, 0, 0, 0].fill_(math.inf), r"that of logits\[0, :, 0, 0\] is inf"),
        (lambda x, y: y[1, 0, 2].fill_(7), r"labels must lie in \[0, 5\) or be 255 \(ignored\), but labels\[1, 0, 2\]"),
        (lambda x, y: y[1, 0, 2].fill_(-1), r"but labels\[1, 0, 2\] is -1"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(change, message):
    logits, labels = image()
    metric, before = updated(logits, labels), updated(logits, labels)
    change(logits, labels)
    with pytest.raises(ValueError, match=message):
        metric.update_logits(logits, labels)
    assert_identical(metric, before)


@pytest.mark.parametrize(
    ("logits", "labels", "predictions", "message"),
    [
        (torch.zeros(2, 4), torch.zeros(2).long(), None, "logits must have 3 classes, got 4"),
        (torch.zeros(2, 3), torch.zeros(3).long(), None, "labels must have shape"),
        (torch.zeros(2, 3).long(), torch.zeros(2).long(), None, "logits must be floating point"),
        (torch.zeros(3), torch.zeros(3).long(), None, "logits must be floating point"),
        (torch.zeros(2, 3), torch.zeros(2), None, "labels must be integers"),
        (torch.zeros(2, 3), torch.zeros(2).long(), torch.zeros(1).long(), "predictions and labels must have the same"),
    ],
)
def test_input_of_another_kind_is_refused(logits, labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        CalibrationMetric(3).update_logits(logits, labels, predictions)


def test_nothing_adds_nothing():
    metric = CalibrationMetric(3)
    metric.update_logits(torch.zeros(0, 3), torch.zeros(0).long())
    metric.update_logits(torch.zeros(2, 3, 0, 4), torch.zeros(2, 0, 4).long())
    assert not any(state.any() for state in states(metric).values())
    check_logits(torch.zeros(0, 3))


def test_no_graph_is_kept():
    logits, labels = image()
    metric = updated(logits.requires_grad_(), labels)
    assert not any(state.requires_grad for state in states(metric).values())
    assert not logit_entropy(logits).requires_grad
