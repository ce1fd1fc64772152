"""Calibration of matched detections: by the book, by hand, and where other implementations differ."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references_detection import Matched, detection_metrics
from torch import Tensor

from uncertainty_core.detection import DetectionCalibration, box_geometry, lrp
from uncertainty_core.detection.calibration import mean_over_categories
from uncertainty_core.functional import FINE_BIN_METRICS

with warnings.catch_warnings():  # its dependencies deprecate one another
    warnings.simplefilter("ignore")
    from netcal.metrics import ECE as NETCAL_ECE

CENTRE = [0.5, 0.5, 0.2, 0.2]


def metric_of(
    score, iou, category=None, num_categories=1, ground_truth=None, iou_threshold=0.5, geometry=None, **settings
):
    """A metric that has seen these detections; all of one category, and in the same place, unless told."""
    metric = DetectionCalibration(num_categories, iou_threshold, **settings)
    metric.update(
        torch.tensor(score, dtype=torch.float64),
        torch.tensor(iou, dtype=torch.float64),
        torch.zeros(len(score), dtype=torch.int64) if category is None else torch.tensor(category),
        torch.tensor(CENTRE, dtype=torch.float64).expand(len(score), 4) if geometry is None else geometry,
        None if ground_truth is None else torch.tensor(ground_truth),
    )
    return metric


def value(name: str, *args, **kwargs) -> float:
    return metric_of(*args, **kwargs).compute()[name].item()


_unit = st.sampled_from([0.05, 0.2, 0.6, 0.999]) | st.floats(0.05, 0.99)
_iou = st.just(0.0) | st.floats(0.5, 1)
_detection = st.builds(Matched, _unit, _iou, st.integers(0, 2), st.tuples(_unit, _unit, _unit, _unit))


@given(st.lists(_detection, min_size=1, max_size=20), st.lists(st.integers(20, 25), min_size=3, max_size=3))
def test_as_the_book(detections, ground_truth):
    score, iou, category, geometry = zip(*detections, strict=True)
    geometry = torch.tensor(geometry, dtype=torch.float64)
    ours = metric_of(score, iou, category, 3, ground_truth, 0.5, geometry).compute()
    for name, expected in detection_metrics(detections, ground_truth, 0.5).items():
        assert ours[name].item() == pytest.approx(expected, abs=1e-12), name


def test_by_hand():
    # Four detections of one class, 5 boxes, t = 0.5:
    #   score 0.9, found with IoU 0.8;   0.9, found with 0.6;   0.9, false;   0.3, false
    # Bins of width 0.1 with the upper edge: {0.9 x 3} with mean 0.9, success 2/3, and {0.3} with success 0.
    metric = metric_of([0.9, 0.9, 0.9, 0.3], [0.8, 0.6, 0, 0], ground_truth=[5], num_bins=10)
    high, low = 2 / 3 - 0.9, -0.3
    expected = {
        "ece": (3 * abs(high) + abs(low)) / 4,
        "msce": (3 * high**2 + low**2) / 4,
        "mce": abs(low),
        "mce_squared": low**2,
        "d_ece": (3 * abs(high) + abs(low)) / 4,
        # all in one place, and 0.9 and 0.3 in the bins (0.8, 1] and (0.2, 0.4] of five
        "d_ece_box": (3 * abs(high) + abs(low)) / 4,
        # mean IoU of the three is (0.8 + 0.6 + 0) / 3
        "laece": (3 * abs(1.4 / 3 - 0.9) + 0.3) / 4,
        "laace": (0.1 + 0.3 + 0.9 + 0.3) / 4,
        "nll_pred": -(3 * math.log(0.9) + math.log(0.3)) / 4,
        "nll": -(2 * math.log(0.9) + math.log(0.1) + math.log(0.7)) / 4,
        "brier": (0.01 + 0.01 + 0.81 + 0.09) / 4,
        # hits (0.2 + 0.4) / 0.5, two false alarms, 5 - 2 missed; 2 + 2 + 3 in all
        "lrp": ((0.2 + 0.4) / 0.5 + 2 + 3) / 7,
        "n": 4,
        "nll_clamped": 0,
    }
    for found in (metric.compute(), metric.per_category()):
        values = {name: value.item() for name, value in found.items() if name not in FINE_BIN_METRICS}
        assert {"classes": 1} | values == pytest.approx({"classes": 1} | expected, abs=1e-12)
    assert metric.result().metrics == {name: value.item() for name, value in metric.compute().items()}


def test_calibrated_scores_have_no_error():
    # Success is drawn from the score, so that the error of a bin with n detections is about sqrt(p (1 - p) / n): of
    # its square, the mean over bins, at most 15 / 4 / N = 2e-5 for N = 200 000, is expected.
    generator = torch.Generator().manual_seed(0)
    score = torch.rand(200_000, generator=generator, dtype=torch.float64)
    found = torch.rand(200_000, generator=generator) < score
    metric = DetectionCalibration(1, 0.5)
    geometry = torch.rand(200_000, 4, generator=generator)
    metric.update(score, 0.9 * found.double(), torch.zeros(200_000, dtype=torch.int64), geometry)
    values = metric.compute()
    assert values["msce"] < 4e-5
    assert values["ece"] < 5e-3
    # the best possible: mean of p (1 - p) over uniform p is 1/6
    assert values["brier"].item() == pytest.approx(1 / 6, abs=2e-3)
    # claiming more spoils it: scores of sqrt(p) are off by up to 1/4
    assert metric_of(score.sqrt().tolist(), found.double().tolist()).compute()["msce"] > 0.02


@pytest.mark.parametrize("seed", range(3))
def test_shards_add_up_to_the_last_bit(seed):
    generator = torch.Generator().manual_seed(seed)
    score, iou = torch.rand(2, 300, generator=generator, dtype=torch.float64)
    iou *= torch.rand(300, generator=generator) < 0.5
    category = torch.randint(3, (300,), generator=generator)
    geometry = torch.rand(300, 4, generator=generator, dtype=torch.float64)
    ground_truth = torch.tensor([50, 60, 70])
    whole, first, second = (DetectionCalibration(3, 0.5) for _ in range(3))
    whole.update(score, iou, category, geometry, 2 * ground_truth)
    order = torch.randperm(300, generator=generator)
    for metric, part in ((first, order[:77]), (second, order[77:])):
        metric.update(score[part], iou[part], category[part], geometry[part], ground_truth)
    first.merge_state(second)
    for name, expected in whole.compute().items():
        assert torch.equal(first.compute()[name], expected), name
    for name, expected in whole.per_category().items():
        assert torch.equal(first.per_category()[name], expected), name
    with pytest.raises(ValueError, match="different settings"):
        whole.merge_state(DetectionCalibration(3, 0.7))


def test_state_does_not_grow_with_detections():
    def size(metric):
        return sum(state.numel() for state in metric.metric_state.values())

    few, many = metric_of([0.5], [1.0]), metric_of([0.5] * 1000, [1.0] * 1000)
    assert size(few) == size(many)


# Edge cases


def test_score_one_belongs_to_the_last_bin_and_threshold_scores_to_the_one_below():
    bins = metric_of([1.0, 0.8, 0.0], [1.0, 1.0, 0.0], num_bins=5).result().bins
    assert bins.count.tolist() == [1, 0, 0, 1, 1]
    bins = metric_of([1.0, 0.8, 0.0], [1.0, 1.0, 0.0], num_bins=5, edges="left").result().bins
    assert bins.count.tolist() == [1, 0, 0, 0, 2]


def test_a_sure_mistake_costs_a_stated_amount_and_is_counted():
    # a false positive of 1 and a hit of 0: likelihood 0 counts as 2^-24, that is 24 log 2; a hit of 1/2: log 2
    metric = metric_of([1.0, 0.5, 0.0], [0.0, 0.5, 0.9], [0, 1, 1], 2)
    values, per_category = metric.compute(), metric.per_category()
    assert values["nll"].item() == pytest.approx((24 + 1 + 24) / 3 * math.log(2))
    assert values["nll_clamped"] == 2 and values["n"] == 3 and values["classes"] == 2
    assert per_category["nll"].tolist() == pytest.approx([24 * math.log(2), 25 / 2 * math.log(2)])
    assert per_category["nll_clamped"].tolist() == [1, 1] and per_category["n"].tolist() == [1, 2]
    assert value("nll_pred", [0.0], [0.0]) == pytest.approx(24 * math.log(2))
    # the number of single precision next to 1 is not clamped
    assert metric_of([1 - 2.0**-24], [0.0]).compute()["nll_clamped"] == 0
    assert metric_of([1 - 2.0**-25], [0.0]).compute()["nll_clamped"] == 1


def test_any_overlap_counts_at_threshold_zero():
    # t = 0: an IoU of 0.01 is success; LRP divides by 1 - t = 1
    metric = metric_of([0.5], [0.01], ground_truth=[1], iou_threshold=0.0)
    assert metric.compute()["lrp"].item() == pytest.approx(0.99)
    assert metric.compute()["brier"].item() == 0.25


def test_categories_with_only_one_of_detections_and_ground_truth():
    # class 0: one perfect detection of one box; class 1: two false positives and no box; class 2: a box that nobody
    # found; class 3: neither
    metric = metric_of([1.0, 0.6, 0.2], [1.0, 0, 0], [0, 1, 1], 4, ground_truth=[1, 0, 1, 0])
    per_category = metric.per_category()
    nan = float("nan")
    assert per_category["laece"].tolist() == pytest.approx([0, 0.4, nan, nan], nan_ok=True)
    assert per_category["laace"].tolist() == pytest.approx([0, 0.4, nan, nan], nan_ok=True)
    assert per_category["lrp"].tolist() == pytest.approx([0, 1, 1, nan], nan_ok=True)
    assert per_category["ece"].tolist() == pytest.approx([0, 0.4, nan, nan], nan_ok=True)
    assert per_category["brier"].tolist() == pytest.approx([0, (0.36 + 0.04) / 2, nan, nan], nan_ok=True)
    values = metric.compute()
    assert values["laece"].item() == values["laace"].item() == pytest.approx(0.2)
    assert values["n"] == 3 and values["classes"] == 2
    assert values["lrp"].item() == pytest.approx(2 / 3)
    assert values["ece"].item() == pytest.approx(0.8 / 3)


@pytest.mark.filterwarnings("ignore:.* is NaN")
def test_no_detections():
    metric = DetectionCalibration(2, 0.5)
    none = torch.zeros(0, dtype=torch.float64)
    metric.update(none, none, none.long(), torch.zeros(0, 4), torch.tensor([3, 0]))
    with pytest.warns(RuntimeWarning, match="is NaN: there are no samples"):
        values = metric.compute()
    assert values.pop("lrp") == 1
    assert [values.pop(name).item() for name in ("n", "classes", "nll_clamped")] == [0, 0, 0]
    assert all(v.isnan() for v in values.values())
    assert metric.per_category()["lrp"].tolist() == pytest.approx([1, float("nan")], nan_ok=True)
    metric.reset()
    metric.update(none, none, none.long(), torch.zeros(0, 4))
    with pytest.warns(RuntimeWarning, match="lrp is NaN"):
        assert metric.compute()["lrp"].isnan()


def test_geometry_ends_at_the_image():
    # In 100 x 50: a box at (10, 5) of 20 x 40 has its centre at (20, 25). One that hangs over the corner with its
    # centre outside counts as if on the edge, and one wider than the image as wide as it.
    box = torch.tensor([[10, 5, 20, 40], [-40, 0, 20, 50], [0, 0, 200, 50]], dtype=torch.float64)
    geometry = box_geometry(box, torch.tensor([100.0, 50.0]).expand(3, 2))
    assert geometry.tolist() == [[0.2, 0.5, 0.2, 0.8], [0, 0.5, 0.2, 1], [1, 0.5, 1, 1]]


def test_lrp_of_shapes():
    # 2 of 4 found with IoU 0.75 + 0.75, one false alarm, t = 0.5: (0.5/0.5 + 1 + 2) / 5
    args = (torch.tensor([2.0, 0]), torch.tensor([1.5, 0]), torch.tensor([3, 0]), torch.tensor([4, 0]))
    assert lrp(*args, 0.5).tolist() == pytest.approx([0.8, float("nan")], nan_ok=True)


@pytest.mark.parametrize("t", [-0.1, 1.0, float("nan")])
def test_thresholds_are_checked(t):
    with pytest.raises(ValueError, match=r"iou_threshold must lie in \[0, 1\)"):
        DetectionCalibration(1, t)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"score": [1.2, 0.5]}, r"score must lie in \[0, 1\], but score\[0\] is 1.2"),
        ({"iou": [0.5, -1.0]}, r"iou must lie in \[0, 1\], but iou\[1\] is -1"),
        ({"iou": [0.5]}, "score and iou must have the same shape"),
        ({"category": [0, 3]}, r"category must lie in \[0, 3\), but category\[1\] is 3"),
        ({"geometry": [CENTRE]}, r"geometry must have shape \(2, 4\), got \(1, 4\)"),
        ({"geometry": [CENTRE, [0, 0, 2.0, 0]]}, r"geometry must lie in \[0, 1\], but geometry\[1, 2\] is 2"),
        ({"ground_truth": [1, 2]}, r"ground_truth must have shape \(3,\), got \(2,\)"),
    ],
)
def test_bad_input_changes_nothing(changed, sentence):
    good = {"score": [0.4, 0.5], "iou": [0.5, 0.0], "category": [0, 2], "geometry": [CENTRE] * 2}
    metric = DetectionCalibration(3, 0.5)
    with pytest.raises(ValueError, match=sentence):
        metric.update(**{name: torch.tensor(v) for name, v in (good | changed).items()})
    assert not any(state.any() for state in metric.metric_state.values())


def test_plot():
    assert metric_of([0.9, 0.2], [0.8, 0]).plot("msce").axes


# Other implementations. netcal puts an edge into the bin above it: edges="left".


def netcal_d_ece(score: Tensor, success: Tensor, geometry: Tensor | None = None, bins: int = 5) -> float:
    features = score[:, None] if geometry is None else torch.cat((score[:, None], geometry), 1)
    return float(NETCAL_ECE(bins, detection=True).measure(features.numpy(), success.numpy().astype(int)))


@pytest.mark.parametrize("bins", [5, 15, 20])
@pytest.mark.parametrize("seed", range(3))
def test_d_ece_as_netcal(bins, seed):
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(3000, generator=generator, dtype=torch.float64)
    success = torch.rand(3000, generator=generator) < score**2
    geometry = torch.rand(3000, 4, generator=generator, dtype=torch.float64)
    ours = metric_of(score.tolist(), success.double().tolist(), geometry=geometry, num_bins=bins, edges="left")
    assert ours.compute()["d_ece"].item() == pytest.approx(netcal_d_ece(score, success, bins=bins), abs=1e-12)
    assert ours.compute()["d_ece_box"].item() == pytest.approx(netcal_d_ece(score, success, geometry), abs=1e-12)


def test_boxes_beyond_the_image_as_netcal():
    # Two centres, 1.05 and 1.2 of the width: both count as on the edge, thus together: |1 / 2 - 0.9| = 0.4. The one in
    # the middle is alone: |0 - 0.9|.
    score, success = torch.full((3,), 0.9, dtype=torch.float64), torch.tensor([True, False, False])
    box = torch.tensor([[95, 40, 20, 20], [110, 40, 20, 20], [40, 40, 20, 20]], dtype=torch.float64)
    size = torch.full((3, 2), 100.0, dtype=torch.float64)
    corner, extent = box.split(2, dim=1)
    unclipped = torch.cat(((corner + extent / 2) / size, extent / size), 1)
    ours = value("d_ece_box", score.tolist(), success.double().tolist(), geometry=box_geometry(box, size), edges="left")
    assert ours == pytest.approx((2 * 0.4 + 0.9) / 3)
    assert netcal_d_ece(score, success, unclipped) == pytest.approx(ours)


def test_default_edges_differ_from_netcal():
    """A score on an edge: the paper's bins hold their upper edge, netcal's their lower one.

    With five bins, 0.4 (found) is alone in (0.2, 0.4] here, but with 0.5 (false) in [0.4, 0.6) there: the errors 0.6
    and 0.5 count one by one here, there only that of the means, |0.5 - 0.45|.
    """
    score, success = torch.tensor([0.4, 0.5], dtype=torch.float64), torch.tensor([True, False])
    assert value("d_ece", [0.4, 0.5], [0.8, 0], num_bins=5) == pytest.approx((0.6 + 0.5) / 2)
    assert netcal_d_ece(score, success) == pytest.approx(0.05)
    assert value("d_ece", [0.4, 0.5], [0.8, 0], num_bins=5, edges="left") == pytest.approx(0.05)


def test_no_detections_differ_from_netcal():
    """netcal crashes; here the value is NaN with a warning, see `test_no_detections`."""
    with pytest.raises(AssertionError):
        netcal_d_ece(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.bool))


def class_errors(score, iou, category, num_categories):
    """|mean score - mean IoU| of each class that has all its detections in one bin: its LaECE, and NaN of no class."""
    score, iou, category = (np.asarray(values, dtype=float) for values in (score, iou, category))
    own = [category == c for c in range(num_categories)]
    return np.array([abs(score[o].mean() - iou[o].mean()) if o.any() else np.nan for o in own])


def test_a_class_without_error_differs_from_detection_calibration():
    """fiveai/detection_calibration takes an error of exactly 0 for "no detections" and leaves the class out.

    Errors 0 (score 0.75, IoU 0.75) and 0.5 (score 0.5, false): mean 0.25 here, 0.5 there; the same for LaACE.
    """
    score, iou, category = [0.75, 0.5], [0.75, 0], [0, 1]
    errors = class_errors(score, iou, category, 2)
    theirs = np.nanmean(np.where(errors == 0, np.nan, errors))
    assert theirs == 0.5
    assert value("laece", score, iou, category, 2) == value("laace", score, iou, category, 2) == 0.25


def test_a_class_without_ground_truth_differs_from_detection_calibration_and_saod():
    """Both skip a class without ground truth with all its false positives; the D-ECE of the former then fails.

    Errors 0.25 (score 1, IoU 0.75) and 0.5 (a false positive of a class without boxes): 0.375 here, 0.25 there. The LRP
    of that class, one false alarm and nothing else, is 1 here and left out there.
    """
    score, iou, category, ground_truth = [1.0, 0.5], [0.75, 0], [0, 1], [1, 0]
    errors = class_errors(score, iou, category, 2)
    assert errors[np.array(ground_truth) > 0].mean() == 0.25
    assert value("laece", score, iou, category, 2, ground_truth) == 0.375
    # class 0: (0.25 / 0.5) / 1
    assert value("lrp", score, iou, category, 2, ground_truth) == (0.5 + 1) / 2


def test_a_class_without_detections_differs_from_saod():
    """saod gives a class that detects nothing the LaECE 0, the best there is: mean 0.25 / 2 there, 0.25 here."""
    score, iou, category, ground_truth = [1.0], [0.75], [0], [1, 3]
    assert np.nan_to_num(class_errors(score, iou, category, 2)).mean() == 0.125
    assert value("laece", score, iou, category, 2, ground_truth) == 0.25


def test_score_one_differs_from_saod():
    """The last of saod's bins [.., ..) lacks its upper end, so that a score of 1 is in none: error 0 there, 1 here."""
    edges = np.linspace(0, 1, 26)
    assert not any(low <= 1.0 < high for low, high in pairwise(edges))
    assert value("laece", [1.0], [0.0]) == 1


def test_mean_over_categories_of_none():
    with pytest.warns(RuntimeWarning, match="laece is NaN: there are no samples"):
        assert mean_over_categories(torch.full((2,), torch.nan), "laece").isnan()
