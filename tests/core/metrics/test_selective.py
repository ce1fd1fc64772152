"""All rankings of pixels from one histogram of fine levels."""

import copy
import math

import pytest
import references as ref
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty_core.functional.sparsification import NUM_LEVELS, uncertainty_level
from uncertainty_core.metrics.selective import REMOVED, PixelRanking

CLOSE = {"rel": 1e-12, "abs": 1e-13}


def drawn(size=200, num_classes=4, seed=0):
    """Predictions, labels with void ones, and uncertainties that have a level of their own."""
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(num_classes, (size,), generator=generator)
    label = torch.where(torch.rand(size, generator=generator) < 0.6, prediction, prediction.flip(0))
    label[torch.rand(size, generator=generator) < 0.2] = 255
    level = torch.randperm(16 * 128, generator=generator)[:size]
    uncertainty = (128 + level % 128) / 256 * 0.5 ** (level // 128)
    return prediction, label, uncertainty


def updated(prediction, label, uncertainty, num_classes=4, **options):
    metric = PixelRanking(num_classes, ignore_index=255, **options)
    metric.update(prediction, label, uncertainty)
    return metric


# Levels


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30))
def test_levels_rise_with_the_uncertainty(values):
    uncertainty = torch.tensor(values).sort().values
    level = uncertainty_level(uncertainty)
    assert level.dtype == torch.int32
    assert (level.diff() >= 0).all() and level[0] >= 0 and level[-1] < NUM_LEVELS
    apart = uncertainty[1:] / uncertainty[:-1] > 1 + 1 / 128
    assert (level.diff()[apart & (uncertainty[1:] >= 2**-23)] > 0).all()


def test_levels_at_their_ends():
    # below 2⁻²⁴, at it, the 128 levels of (1/2 .. 1), and 1
    values = torch.tensor([0.0, -0.0, 2**-24.1, 2**-24, 0.5, 1 - 2**-9, 1.0])
    assert uncertainty_level(values).tolist() == [0, 0, 0, 1, 1 + 23 * 128, 24 * 128, NUM_LEVELS - 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_levels_of_other_precisions(dtype):
    values = torch.rand(100).to(dtype)
    assert torch.equal(uncertainty_level(values), uncertainty_level(values.float()))


# Against the references


def test_everything_equals_the_loops():
    prediction, label, uncertainty = drawn()
    valid = label != 255
    # a number of pixels of which each share is whole
    keep = valid.nonzero().flatten()[: int(valid.sum()) // 20 * 20]
    chosen = torch.cat((keep, (~valid).nonzero().flatten()))
    prediction, label, uncertainty = prediction[chosen], label[chosen], uncertainty[chosen]
    valid = label != 255
    computed = updated(prediction, label, uncertainty).compute()
    data = prediction[valid].tolist(), label[valid].tolist()
    curve = ref.sparsification_by_sort(*data, uncertainty[valid].tolist(), 4, list(REMOVED))
    oracle = ref.sparsification_oracle(*data, 4, list(REMOVED))
    wrong = (prediction != label)[valid].tolist()
    certain = uncertainty[valid].tolist(), wrong
    known = uncertainty.tolist(), (~valid).tolist()
    expected = {
        "miou": ref.mean_iou(ref.confusion_by_loop(*data, 4)),
        "ause": ref.ause(curve, oracle, list(REMOVED)),
        "aurc": ref.aurc(*certain),
        "error_auroc": ref.auroc(*certain),
        "error_aupr": ref.average_precision(*certain),
        "error_fpr95": ref.fpr_at_tpr(*certain, 0.95),
        "auroc": ref.auroc(*known),
        "aupr": ref.average_precision(*known),
        "fpr95": ref.fpr_at_tpr(*known, 0.95),
    }
    assert computed["curve"].tolist() == pytest.approx(curve, **CLOSE)
    assert computed["oracle"].tolist() == pytest.approx(oracle, **CLOSE)
    assert {name: computed[name].item() for name in expected} == {
        k: pytest.approx(v, **CLOSE) for k, v in expected.items()
    }


def test_class_iou():
    # class 0: 1 of 2 (0 taken for 1), class 1: 1 of 2, class 2 occurs nowhere; the last pixel is void
    prediction, label = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 255])
    metric = updated(prediction, label, torch.tensor([0.1, 0.2, 0.3, 0.4]), 3)
    assert metric.levels.class_iou.tolist() == pytest.approx([0.5, 0.5, math.nan], nan_ok=True)
    assert metric.levels.errors.events.sum() == 1 and metric.levels.errors.count.sum() == 3
    assert metric.levels.outliers.events.sum() == 1 and metric.levels.outliers.count.sum() == 4


def sorted_curve(prediction, label, uncertainty, num_classes):
    """mIoU at each of REMOVED after a full sort."""
    cell = (label * num_classes + prediction)[uncertainty.argsort(stable=True)]
    ious = []
    for share in REMOVED:
        kept = torch.bincount(cell[: round(len(cell) * (1 - share))], minlength=num_classes**2)
        confusion = kept.view(num_classes, num_classes).double()
        union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
        ious.append((confusion.diagonal() / union).nanmean().item())
    return ious


@pytest.mark.parametrize("kind", ["a network's", "spread"])
def test_levels_come_close_to_the_full_sort(kind):
    # a map that is certain nearly everywhere: nine tenths below 0.2, a tenth below 0.002
    size, num_classes = 2**19, 5
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(size, generator=generator)
    uncertainty = (2 * normal - 4).sigmoid() if kind == "a network's" else torch.rand(size, generator=generator)
    label = torch.randint(num_classes, (size,), generator=generator)
    wrong = torch.rand(size, generator=generator) < uncertainty.sqrt() / 2
    prediction = torch.where(wrong, torch.randint(num_classes, (size,), generator=generator), label)
    curve = updated(prediction, label, uncertainty, num_classes).compute()["curve"].tolist()
    assert curve == pytest.approx(sorted_curve(prediction, label, uncertainty, num_classes), abs=1e-4)


# The same bits however the data arrives


@given(st.lists(st.integers(0, 200), max_size=4).map(sorted))
def test_parts_add_up_exactly(cuts):
    data = drawn()
    metric, whole = PixelRanking(4, ignore_index=255), updated(*data)
    other = copy.deepcopy(metric)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, 200], strict=True)):
        (metric, other)[number % 2].update(*(values[start:stop] for values in data))
    metric.merge_state(other)
    assert all(torch.equal(metric.metric_state[name], state) for name, state in whole.metric_state.items())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_images_and_labels_of_any_integers(dtype):
    prediction, label, uncertainty = drawn()
    got = updated(prediction.to(dtype).view(10, 20), label.to(dtype).view(10, 20), uncertainty.view(10, 20))
    expected = updated(prediction, label, uncertainty)
    assert all(torch.equal(got.metric_state[name], state) for name, state in expected.metric_state.items())


@pytest.mark.parametrize("ignore_index", [None, 0, -100])
def test_what_is_void_is_a_setting(ignore_index):
    prediction, label, uncertainty = drawn()
    label = label.masked_fill(label == 255, 0 if ignore_index is None else ignore_index)
    metric = PixelRanking(4, ignore_index=ignore_index)
    metric.update(prediction, label, uncertainty)
    assert metric.void.sum() == (0 if ignore_index is None else (label == ignore_index).sum())


@pytest.mark.parametrize("num_classes", [19, 150])
def test_the_state_is_small(num_classes):
    metric = PixelRanking(num_classes)
    assert sum(state.numel() * state.element_size() for state in metric.metric_state.values()) < 1e7


# Little input, and bad input


def test_all_void_and_nothing_at_all():
    for size in (0, 3):
        metric = updated(torch.zeros(size).long(), torch.full((size,), 255), torch.rand(size))
        with pytest.warns(RuntimeWarning, match="there are no"):
            computed = metric.compute()
        assert all(value.isnan().all() for value in computed.values())


def test_all_right_has_no_errors_to_find():
    label = torch.tensor([0, 1, 2, 3])
    computed = updated(label, label, torch.rand(4)).compute()
    assert computed["miou"] == 1 and computed["ause"] == 0 and computed["aurc"] == 0
    assert computed["error_auroc"].isnan() and computed["auroc"].isnan()


@pytest.mark.parametrize(
    ("number", "value", "message"),
    [
        (0, 4, r"prediction must lie in \[0, 4\), but prediction\[2\] is 4"),
        (1, 4, r"label must lie in \[0, 4\) or be 255 \(ignored\), but label\[2\] is 4"),
        (1, -1, r"but label\[2\] is -1"),
        (1, 2**32, r"but label\[2\] is 4294967296"),
        (2, math.nan, r"uncertainty must be finite, but uncertainty\[2\] is nan"),
        (2, 1.5, r"uncertainty must lie in \[0, 1\], but uncertainty\[2\] is 1.5"),
    ],
)
def test_bad_pixels_are_refused_and_change_nothing(number, value, message):
    data = drawn()
    metric, before = updated(*data), updated(*data)
    data[number][2] = value
    with pytest.raises(ValueError, match=message):
        metric.update(*data)
    assert all(torch.equal(metric.metric_state[name], state) for name, state in before.metric_state.items())


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (2, 3)])
def test_maps_have_one_shape(shape):
    data = list(drawn(4))
    data[shape[0]] = data[shape[0]][: shape[1]]
    with pytest.raises(ValueError, match="must have the same shape"):
        PixelRanking(4).update(*data)
    with pytest.raises(ValueError, match="must be integers"):
        PixelRanking(4).update(torch.zeros(2), torch.zeros(2), torch.zeros(2))


def test_plots_itself():
    assert updated(*drawn()).plot().axes
