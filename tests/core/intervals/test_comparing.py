"""Intervals of metrics, of means over seeds, and of differences on the same images."""

import math

import numpy as np
import pytest
import torch

from uncertainty_core.intervals.classified import ClassifiedImages
from uncertainty_core.intervals.comparing import Resampled, difference, over_seeds, resample

RESAMPLES = 200


def predictor(seed, shift=0.0, size=300, first=0):
    """Images whose predictions are right as often as their confidence has it, less `shift`."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.5, 1, size)
    success = generator.uniform(size=size) < confidence - shift
    scores = {"brier": (confidence - success) ** 2}
    return ClassifiedImages([str(k) for k in range(first, first + size)], confidence, success, scores)


def test_values_are_those_of_all_images_and_lie_in_their_intervals():
    images = predictor(0, 0.2)
    found = resample(images, RESAMPLES)
    assert found.values["accuracy"] == pytest.approx(images.success.mean())
    assert found.values["brier"] == pytest.approx(images.scores["brier"].mean())
    for name, (low, high) in found.intervals.items():
        assert low <= found.values[name] <= high, name
    low, high = found.interval("accuracy")
    # 300 images of which 55 % are right: 1.96 standard errors are 0.056
    assert high - low == pytest.approx(2 * 0.056, rel=0.2)


def test_the_order_of_the_images_changes_nothing():
    images = predictor(0)
    order = np.random.default_rng(1).permutation(len(images.ids))
    shuffled = ClassifiedImages(
        [images.ids[k] for k in order],
        images.confidence[order],
        images.success[order],
        {"brier": images.scores["brier"][order]},
    )
    one, other = resample(images, 20), resample(shuffled, 20)
    assert torch.allclose(one.resamples["ece"], other.resamples["ece"], atol=1e-12)


def test_errors_are_never_negative_but_differences_may_be():
    calibrated, worse = resample(predictor(0), RESAMPLES), resample(predictor(1, 0.2), RESAMPLES)
    assert calibrated.interval("msce").low == 0
    found = difference(calibrated, worse, "ece")
    assert found.absolute == pytest.approx(calibrated.values["ece"] - worse.values["ece"])
    assert found.relative == pytest.approx(found.absolute / worse.values["ece"])
    assert found.absolute_interval.high < 0 and found.relative_interval.high < 0
    assert found.is_known
    nothing = difference(calibrated, calibrated, "ece")
    assert nothing.absolute_interval == (0, 0) and not nothing.is_known


def test_an_error_cannot_fall_by_more_than_all_of_it():
    def errors(value, *resamples):
        return Resampled({"ece": value}, {"ece": torch.tensor(resamples, dtype=torch.float64)})

    # of 0.1 less 0.5, 0.6 and 0.7 three resamples are -0.4, -0.6 and -0.8 around -0.4, whose bias would double that
    found = difference(errors(0.1, 0.1, 0.0, 0.0), errors(0.5, 0.5, 0.6, 0.8), "ece")
    assert (found.absolute_interval.low, found.relative_interval.low) == (-0.5, -1)


@pytest.mark.parametrize(("name", "low"), [("ece", 0), ("box_nll", -2.5), ("undeclared", -2.5)])
def test_only_what_is_declared_signed_has_a_negative_end(name, low):
    def found(value, resamples):
        return Resampled({name: value}, {name: torch.tensor(resamples, dtype=torch.float64)})

    # the resamples are 1 above the value: 0.5 - 2 - 1 and 2.5 - 2 + 1
    assert found(0.5, [0.5, 1.5, 2.5] * 50).interval(name) == pytest.approx((low, 1.5))
    means = over_seeds([found(0.0, [0.0] * 99), found(1.0, [1.0] * 99)]).resamples[name]
    assert (means.min() < 0) == (low < 0)


def test_differences_are_paired():
    # twice the same confidence, moved by a hundredth: what the images have in common leaves no spread
    one = predictor(0)
    other = ClassifiedImages(one.ids, one.confidence, one.success, {"brier": one.scores["brier"] + 0.01})
    one, other = resample(one, RESAMPLES), resample(other, RESAMPLES)
    assert difference(other, one, "brier").absolute_interval == pytest.approx((0.01, 0.01))
    low, high = one.interval("brier")
    assert high - low > 0.02


def test_seeds_widen_the_interval_of_their_mean():
    def run(value):
        return Resampled({"ece": value}, {"ece": torch.full((RESAMPLES,), value, dtype=torch.float64)})

    found = over_seeds([run(0.1), run(0.2), run(0.6)])
    assert found.values["ece"] == pytest.approx(0.3)
    # the standard deviation of a mean of three is sqrt(0.07 / 3) = 0.153; all three are 0.6 once in 27 times
    low, high = found.interval("ece")
    assert 0 <= low < 0.1 and 0.5 < high < 0.7
    assert over_seeds([run(0.1)]).interval("ece") == pytest.approx((0.1, 0.1))
    # weights of a seed may be below 0, and with them the mean of 0 and 1; of what never is negative it is not
    assert over_seeds([run(0.0), run(1.0)]).resamples["ece"].min() == 0


def test_what_is_undefined_has_no_interval():
    perfect = ClassifiedImages(["a", "b"], np.array([0.9, 0.8]), np.array([True, True]))
    found = resample(perfect, 20)
    assert math.isnan(found.values["error_auroc"]) and "error_auroc" not in found.intervals
    assert found.interval("accuracy") == (1, 1)


def test_resamples_move_with_a_value_that_was_measured_more_finely():
    found = Resampled({"ause": 0.5, "n": 1.0}, {name: torch.tensor([0.4, 0.6]).double() for name in ("ause", "n")})
    moved = found.around({"ause": 0.6})
    assert moved.values == {"ause": 0.6}
    assert moved.resamples["ause"].tolist() == pytest.approx([0.5, 0.7])
