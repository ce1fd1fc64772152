"""Weights that depend on the image alone, and intervals by hand and by simulation."""

import math

import pytest
import torch

from uncertainty_core.intervals.resampling import Interval, image_weights, interval, seed_draws


def test_weights_are_those_of_the_image_in_every_order_shard_and_number():
    weights = image_weights(["a", "b", "c"], 50, seed=1)
    assert weights.dtype == torch.uint8
    assert torch.equal(image_weights(["c", "a"], 20, seed=1), weights[[2, 0], :20])
    assert torch.equal(image_weights([7], 50), image_weights(["7"], 50))
    assert not torch.equal(image_weights(["a", "b", "c"], 50, seed=2), weights)
    assert image_weights([], 5).shape == (0, 5)


def test_weights_are_poisson_with_mean_one():
    # 400 x 500 draws: k occurs e^-1 / k! of the time, with a standard error of at most 0.0011
    count = torch.bincount(image_weights(range(400), 500).flatten()) / 200_000
    expected = torch.tensor([math.exp(-1) / math.factorial(k) for k in range(len(count))])
    assert torch.allclose(count.double(), expected.double(), atol=0.005)


def test_interval_by_hand():
    resampled = torch.arange(101, dtype=torch.float64)  # 0 to 100, mean 50
    assert interval(50, resampled) == pytest.approx((2.5, 97.5))
    # resamples are 20 too high, so is the value; percentiles less 40, and 20 wider on either side
    assert interval(30, resampled) == pytest.approx((2.5 - 40 - 20, 97.5 - 40 + 20))
    assert interval(70, resampled) == pytest.approx((2.5 + 40 - 20, 97.5 + 40 + 20))
    assert interval(200, torch.full((9,), 200.0)) == (200, 200)


def test_interval_of_what_is_undefined():
    nan, inf = math.nan, math.inf
    assert all(math.isnan(end) for end in interval(nan, torch.ones(9)))
    assert all(math.isnan(end) for end in interval(1, torch.tensor([1.0, nan, nan])))
    assert interval(1, torch.tensor([1.0, 1.0, inf])) == (1, 1)


def test_interval_knows_a_sign():
    assert Interval(0.1, 0.2).excludes_zero and Interval(-0.2, -0.1).excludes_zero
    assert not Interval(-0.1, 0.2).excludes_zero and not Interval(math.nan, math.nan).excludes_zero


def test_seeds_are_drawn_with_replacement():
    weights = seed_draws(3, 20_000)
    assert torch.allclose(weights.sum(0), torch.ones(20_000, dtype=torch.float64))
    values = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    means = values @ weights
    # the variance of a mean of three: sample variance 7, over 3
    assert means.mean().item() == pytest.approx(3, abs=0.05)
    assert means.var().item() == pytest.approx(7 / 3, rel=0.05)
    assert not torch.equal(seed_draws(3, 50, "another"), weights[:, :50])


def test_interval_of_a_mean_contains_the_truth_as_often_as_it_should():
    # 95 % of 200 repetitions, with a standard error of 1.5 %
    generator = torch.Generator().manual_seed(0)
    weights = image_weights(range(100), 400).double()
    samples = torch.empty(200, 100, dtype=torch.float64).exponential_(generator=generator)
    means = samples @ weights / weights.sum(0)
    found = [interval(sample.mean().item(), mean) for sample, mean in zip(samples, means, strict=True)]
    assert 0.90 <= sum(low <= 1 <= high for low, high in found) / 200 <= 0.98
