"""Binned calibration against plain loops over exact fractions."""

import copy
import json
import math
import pickle
import re

import numpy as np
import pytest
import references as ref
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import Bin
from strategies import DTYPES, EDGES, bin_numbers, binned, dtypes, edge_rules, predicted, unit_values
from strict import strictly

from uncertainty_core.errors import UserError
from uncertainty_core.functional.calibration import (
    BIN_METRICS,
    BinStatistics,
    CalibrationResult,
    adaptive_ece,
    bin_edges,
    bin_index,
    bin_statistics,
    bin_sums,
    class_wise_ece,
    ece,
    mce,
    mce_squared,
    msce,
)

REFERENCES = {"ece": ref.ece, "msce": ref.msce, "mce": ref.mce, "mce_squared": ref.mce_squared}

# Everything in float64 from exact sums: what remains is the rounding of a few divisions.
CLOSE = {"rel": 1e-12, "abs": 1e-13}

# Five predictions in bins of a quarter, on an edge where that matters
#   right: (0, .25]: .25 hit | (.25, .5]: .5 miss | empty | (.75, 1]: .8 hit, 1. hit, .9 miss
#   left:  empty | [.25, .5): .25 hit | [.5, .75): .5 miss | [.75, 1]: the same three
HAND = torch.tensor([0.25, 0.5, 0.8, 1.0, 0.9], dtype=torch.float64)
HAND_SUCCESS = torch.tensor([True, False, True, True, False])


def hand(edges="right"):
    return bin_statistics(HAND, HAND_SUCCESS, num_bins=4, edges=edges)


def assert_bins_equal(bins: BinStatistics, expected: list[Bin]):
    """Counts exactly; sums up to the 2⁻⁴⁸ per term that are cut off, and one rounding to float64."""
    assert bins.count.tolist() == [b.count for b in expected]
    for got, want in zip(bins.confidence.tolist(), [b.confidence for b in expected], strict=True):
        assert -1e-15 <= want - got <= 1e-13
    for got, want in zip(bins.success.tolist(), [b.success for b in expected], strict=True):
        assert -1e-15 <= want - got <= 1e-13


# Which bin


@pytest.mark.parametrize(
    ("edges", "expected"),
    [("right", [0, 0, 0, 1, 2, 3, 4, 9, 9]), ("left", [0, 0, 1, 2, 3, 4, 5, 9, 9])],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_one_and_the_tenths_lie_on_edges(edges, expected, dtype):
    confidence = torch.tensor([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.95, 1.0], dtype=dtype)
    assert bin_index(confidence, 10, edges).tolist() == expected


@given(st.data(), bin_numbers, dtypes, edge_rules)
def test_the_bin_is_the_one_that_a_walk_over_all_bins_finds(data, num_bins, dtype, edges):
    confidence = torch.tensor(data.draw(st.lists(unit_values(num_bins), max_size=20)), dtype=dtype)
    limits = ref.edge_values(num_bins, dtype)
    expected = [ref.bin_by_loop(value, limits, edges) for value in confidence.tolist()]
    assert bin_index(confidence, num_bins, edges).tolist() == expected


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_edge_up_to_a_thousand_bins_and_both_its_neighbours(edges, dtype):
    for num_bins in range(1, 1001):
        grid = np.array([k / num_bins for k in range(num_bins + 1)]).astype(dtype)
        values = np.concatenate([grid, np.nextafter(grid, dtype(-1)), np.nextafter(grid, dtype(2))])
        values = values[(values >= 0) & (values <= 1)]
        # a sorted search from the far side: the number of interior edges below (or up to) the value
        expected = np.searchsorted(grid[1:-1], values, side="left" if edges == "right" else "right")
        assert np.array_equal(bin_index(torch.from_numpy(values), num_bins, edges).numpy(), expected), num_bins


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("num_bins", [1, 2, 10, 15, 255, 1000])
def test_every_half_precision_number(edges, dtype, num_bins):
    one = torch.tensor(1.0, dtype=dtype).view(torch.int16).item()
    values = torch.arange(one + 1, dtype=torch.int16).view(dtype)  # bit patterns from 0 to 1
    grid = np.array(ref.edge_values(num_bins, dtype))
    expected = np.searchsorted(grid[1:-1], values.double().numpy(), side="left" if edges == "right" else "right")
    assert np.array_equal(bin_index(values, num_bins, edges).numpy(), expected)


def test_edges_are_rounded_once():
    assert bin_edges(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert bin_edges(10)[3].item() == 0.3  # 3 · 0.1 is not
    assert bin_edges(10, torch.float32)[7].item() == torch.tensor(0.7).item()


def test_an_unknown_edge_rule_is_refused():
    with pytest.raises(ValueError, match="edges must be 'right' or 'left', got 'middle'"):
        bin_index(torch.tensor([0.5]), 10, "middle")


# What the bins hold


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ("right", [Bin(1, 0.25, 1), Bin(1, 0.5, 0), Bin(0, 0, 0), Bin(3, 2.7, 2)]),
        ("left", [Bin(0, 0, 0), Bin(1, 0.25, 1), Bin(1, 0.5, 0), Bin(3, 2.7, 2)]),
    ],
)
def test_hand_filled_bins(edges, expected):
    bins = hand(edges)
    assert_bins_equal(bins, expected)
    mean = [b.confidence / b.count if b.count else math.nan for b in expected]
    freq = [b.success / b.count if b.count else math.nan for b in expected]
    assert bins.mean_confidence.tolist() == pytest.approx(mean, nan_ok=True)
    assert bins.success_frequency.tolist() == pytest.approx(freq, nan_ok=True)
    gap = [f - c if b.count else 0 for f, c, b in zip(freq, mean, expected, strict=True)]
    assert bins.gap.tolist() == pytest.approx(gap)


@given(binned())
def test_bins_equal_the_loop(drawn):
    assert_bins_equal(bin_statistics(*drawn), ref.bins_by_loop(*drawn))


def test_a_long_input_crosses_the_pieces_it_is_cut_into():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(300_000, generator=generator, dtype=torch.float64)
    success = torch.rand(300_000, generator=generator) < confidence
    bins = bin_statistics(confidence, success, 10)
    expected = np.searchsorted(np.arange(1, 10) / 10, confidence.numpy(), side="left")
    assert bins.count.tolist() == np.bincount(expected, minlength=10).tolist()
    assert bins.success.tolist() == np.bincount(expected[success.numpy()], minlength=10).tolist()
    totals = [math.fsum(confidence[torch.from_numpy(expected == k)].tolist()) for k in range(10)]
    assert bins.confidence.tolist() == pytest.approx(totals, rel=1e-13)


@given(binned(), st.data())
def test_each_group_gets_the_bins_it_would_have_alone(drawn, data):
    num_groups = data.draw(st.integers(1, 4))
    size = len(drawn.confidence)
    group = torch.tensor(data.draw(st.lists(st.integers(0, num_groups - 1), min_size=size, max_size=size))).long()
    sums = bin_sums(*drawn, group=group, num_groups=num_groups)
    assert sums.shape == (5, num_groups, drawn.num_bins)
    for k in range(num_groups):
        alone = bin_sums(drawn.confidence[group == k], drawn.success[group == k], drawn.num_bins, drawn.edges)
        assert torch.equal(sums[:, k], alone)
    assert torch.equal(sums.sum(1), bin_sums(*drawn))


@given(binned(), st.integers(0, 30), st.randoms())
def test_sums_of_parts_in_any_order_are_the_sums_of_the_whole(drawn, cut, random):
    order = list(range(len(drawn.confidence)))
    random.shuffle(order)
    order = torch.tensor(order, dtype=torch.int64)
    parts = [bin_sums(drawn.confidence[i], drawn.success[i], *drawn[2:]) for i in (order[:cut], order[cut:])]
    assert torch.equal(parts[0] + parts[1], bin_sums(*drawn))


def test_any_shape_is_flattened():
    square = bin_sums(HAND[:4].view(2, 2), HAND_SUCCESS[:4].view(2, 2), 4)
    assert torch.equal(square, bin_sums(HAND[:4], HAND_SUCCESS[:4], 4))
    assert torch.equal(bin_sums(HAND[1], HAND_SUCCESS[1], 4), bin_sums(HAND[1:2], HAND_SUCCESS[1:2], 4))


def test_a_graph_is_not_dragged_along():
    assert not bin_sums(HAND.clone().requires_grad_(), HAND_SUCCESS, 4).requires_grad


# Metrics of the bins


@pytest.mark.parametrize(
    ("metric", "right", "left"),
    [
        # gaps, right: .75 (1 of 5), -.5 (1 of 5), 2/3 - .9 = -7/30 (3 of 5); left: the same in other bins
        (ece, (0.75 + 0.5 + 0.7) / 5, (0.75 + 0.5 + 0.7) / 5),
        (msce, (0.5625 + 0.25 + 3 * (7 / 30) ** 2) / 5, (0.5625 + 0.25 + 3 * (7 / 30) ** 2) / 5),
        (mce, 0.75, 0.75),
        (mce_squared, 0.5625, 0.5625),
    ],
)
def test_hand_worked_metrics(metric, right, left):
    assert metric(hand("right")).item() == pytest.approx(right, rel=1e-14)
    assert metric(hand("left")).item() == pytest.approx(left, rel=1e-14)


@pytest.mark.parametrize(("edges", "expected"), [("right", 0.125), ("left", 0.375)])
def test_the_edge_rule_decides_the_error(edges, expected):
    # right: both in [0, .5], |1/2 - .375| = .125; left: one in each half, (|0 - .25| + |1 - .5|) / 2 = .375
    bins = bin_statistics(torch.tensor([0.25, 0.5]), torch.tensor([False, True]), 2, edges)
    assert ece(bins).item() == expected


@pytest.mark.parametrize("name", BIN_METRICS)
@given(binned(min_size=1))
def test_metrics_equal_the_loop(name, drawn):
    value = BIN_METRICS[name](bin_statistics(*drawn))
    assert value.dtype == torch.float64 and value.shape == ()
    assert value.item() == pytest.approx(REFERENCES[name](ref.bins_by_loop(*drawn)), **CLOSE)


@pytest.mark.parametrize("name", BIN_METRICS)
def test_metrics_of_groups_are_those_of_each_group(name):
    bins = bin_statistics(HAND, HAND_SUCCESS, 4, group=torch.tensor([0, 0, 1, 1, 1]), num_groups=2)
    value = BIN_METRICS[name](bins)
    alone = [BIN_METRICS[name](bin_statistics(HAND[i], HAND_SUCCESS[i], 4)) for i in (slice(2), slice(2, None))]
    assert torch.equal(value, torch.stack(alone))


def test_weights_are_exact_for_counts_beyond_float32():
    # 2²⁴ + 1 of 2²⁵ in the one bin: float32 would round that to a half
    count = torch.tensor([2**24 + 1, 2**24 - 1])
    bins = BinStatistics(
        count, confidence=torch.zeros(2).double(), success=torch.stack((count[0], count[0] * 0)).double()
    )
    assert ece(bins).item() == (2**24 + 1) / 2**25


def test_hand_worked_adaptive_ece():
    # sorted: .2 hit, .4 miss | .6 hit, .8 miss: excess .8 - .4 and .4 - .8, so (.4 + .4) / 4
    confidence = torch.tensor([0.6, 0.2, 0.8, 0.4], dtype=torch.float64)
    success = torch.tensor([True, True, False, False])
    assert adaptive_ece(bin_statistics(confidence, success, 1000), 2).item() == pytest.approx(0.2)
    # four groups of one, and as many more as there may be: the mean of .8, .4, .4, .8
    for num_groups in (4, 8, 400):
        assert adaptive_ece(bin_statistics(confidence, success, 1000), num_groups).item() == pytest.approx(0.6)
    # three groups, of 4/3: .8 - .4/3 | -.4 · 2/3 + .4 · 2/3 | .4/3 - .8
    assert adaptive_ece(bin_statistics(confidence, success, 1000), 3).item() == pytest.approx((1.6 - 0.8 / 3) / 4)
    # all in one bin, of mean .5 and success 1/2
    assert adaptive_ece(bin_statistics(confidence, success, 1), 3).item() == pytest.approx(0, abs=1e-12)


@settings(max_examples=50)
@given(st.lists(st.tuples(unit_values(7), unit_values(2)), min_size=1, max_size=12), st.integers(1, 20), st.data())
def test_adaptive_ece_is_within_its_bound_of_sorted_samples(samples, num_groups, data):
    confidence, success = torch.tensor(samples, dtype=torch.float64).T
    num_bins = data.draw(st.integers(1, 40) | st.just(200))
    ours = adaptive_ece(bin_statistics(confidence, success, num_bins), num_groups).item()
    bound = ref.adaptive_ece_bound(ref.bins_by_loop(confidence, success, num_bins, "right"), num_groups)
    assert abs(ours - ref.adaptive_ece(confidence, success, num_groups)) <= bound + 1e-9


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=12), st.integers(1, 20))
def test_adaptive_ece_is_exact_where_each_bin_holds_ties(samples, num_groups):
    confidence = torch.tensor([k / 50 for k, _ in samples], dtype=torch.float64)
    success = torch.tensor([hit for _, hit in samples])
    expected = float(ref.adaptive_ece(confidence, success, num_groups))
    assert adaptive_ece(bin_statistics(confidence, success, 51), num_groups).item() == pytest.approx(
        expected, abs=1e-12
    )


def test_adaptive_ece_of_groups():
    group = torch.tensor([0, 0, 2, 2])
    bins = bin_statistics(torch.tensor([0.1, 0.9, 0.5, 0.5]), torch.tensor([1.0, 1, 1, 0]), 1000, "left", group, 3)
    with pytest.warns(RuntimeWarning, match="adaptive ECE is NaN: there are no samples"):
        assert adaptive_ece(bins, 2).tolist() == pytest.approx([0.5, math.nan, 0], abs=1e-6, nan_ok=True)


@given(predicted(min_size=1), bin_numbers, edge_rules)
def test_class_wise_ece_equals_the_loop(drawn, num_bins, edges):
    probabilities, labels = drawn
    classes = torch.arange(probabilities.shape[1])
    bins = bin_statistics(
        probabilities.flatten(),
        (labels[:, None] == classes).flatten(),
        num_bins,
        edges,
        group=classes.expand_as(probabilities).flatten(),
        num_groups=len(classes),
    )
    expected = ref.class_wise_ece(probabilities, labels, num_bins, edges)
    assert class_wise_ece(bins).item() == pytest.approx(expected, **CLOSE)


def test_hand_worked_class_wise_ece():
    # one bin. class 0: mean .75 against 1/2 -> .25; class 1: mean .25 against 1/2 -> .25; class 2: 0 against 0 -> 0
    bins = BinStatistics(
        count=torch.tensor([[2], [2], [2]]),
        confidence=torch.tensor([[1.5], [0.5], [0.0]], dtype=torch.float64),
        success=torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64),
    )
    assert class_wise_ece(bins).item() == pytest.approx(0.5 / 3, rel=1e-15)


# Bad input, and little of it


GOOD = (torch.tensor([0.25, 0.5]), torch.tensor([True, False]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": torch.tensor([0.5, 3.0])}, "confidence must lie in [0, 1], but confidence[1] is 3.0"),
        ({"confidence": torch.tensor([math.nan, 3.0])}, "confidence must be finite, but confidence[0] is nan"),
        ({"confidence": torch.tensor([1, 0])}, "confidence must be floating point, got torch.int64"),
        ({"confidence": torch.rand(3)}, "confidence and success must have the same shape, got (3,) and (2,)"),
        ({"success": torch.tensor([0.5, -0.5])}, "success must lie in [0, 1], but success[1] is -0.5"),
        ({"success": torch.tensor([0.5, math.nan])}, "success must be finite, but success[1] is nan"),
        ({"success": torch.tensor([1, 0])}, "success must be bool or floating point, got torch.int64"),
        ({"num_bins": 0}, "num_bins must be an integer >= 1, got 0"),
        ({"num_bins": 10.0}, "num_bins must be an integer >= 1, got 10.0"),
        ({"edges": "both"}, "edges must be 'right' or 'left', got 'both'"),
        ({"group": torch.tensor([0, 1])}, "num_groups must be an integer >= 1, got None"),
        ({"group": torch.tensor([0, 2]), "num_groups": 2}, "group must lie in [0, 2), but group[1] is 2"),
        ({"group": torch.tensor([-1, 0]), "num_groups": 2}, "group must lie in [0, 2), but group[0] is -1"),
        ({"group": torch.tensor([0.0, 1.0]), "num_groups": 2}, "group must be integers, got torch.float32"),
        (
            {"group": torch.tensor([0]), "num_groups": 2},
            "confidence and group must have the same shape, got (2,) and (1,)",
        ),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        bin_sums(**{"confidence": GOOD[0], "success": GOOD[1]} | arguments)


@pytest.mark.parametrize("name", BIN_METRICS)
def test_a_metric_of_nothing_is_nan_with_a_warning(name):
    bins = bin_statistics(torch.zeros(0), torch.zeros(0, dtype=torch.bool), 3)
    assert bins.count.tolist() == [0, 0, 0]
    with pytest.warns(RuntimeWarning, match=" is NaN: there are no samples"):
        assert BIN_METRICS[name](bins).isnan()


@pytest.mark.parametrize("name", BIN_METRICS)
def test_only_the_empty_group_is_nan(name):
    bins = bin_statistics(*GOOD, 3, group=torch.tensor([1, 1]), num_groups=2)
    with pytest.warns(RuntimeWarning, match="there are no samples"):
        assert BIN_METRICS[name](bins).isnan().tolist() == [True, False]


@pytest.mark.parametrize(("confidence", "gap"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)])
@pytest.mark.parametrize("edges", EDGES)
def test_a_single_sample(confidence, gap, edges):
    bins = bin_statistics(torch.tensor([confidence]), torch.tensor([True]), 10, edges)
    assert [metric(bins).item() for metric in BIN_METRICS.values()] == [gap, gap**2, gap, gap**2]


# Results


def result(edges="right", **scores):
    return CalibrationResult(hand(edges), edges, scores)


SCORES = {"accuracy": 0.1 + 0.2, "nll_true": math.inf, "auroc": math.nan, "log": -math.inf, "tiny": 5e-324}


@pytest.mark.parametrize("edges", EDGES)
def test_a_result_survives_json_bit_for_bit(edges):
    before = result(edges, **SCORES)
    after = CalibrationResult.from_json(before.to_json())
    assert after == before and after.to_json() == before.to_json() and str(after) == str(before)
    assert after.edges == edges
    for name in ("count", "confidence", "success"):
        assert torch.equal(getattr(after.bins, name), getattr(before.bins, name))
        assert getattr(after.bins, name).dtype == getattr(before.bins, name).dtype
    assert list(after.scores) == list(SCORES)
    assert [repr(value) for value in after.scores.values()] == [repr(value) for value in SCORES.values()]


@settings(max_examples=15)  # a thousand bins are much text
@given(binned(min_size=1), st.dictionaries(st.text(), st.floats(), max_size=4))
def test_any_result_survives_json(drawn, scores):
    before = CalibrationResult(bin_statistics(*drawn), drawn.edges, scores)
    strictly(before.to_json())
    assert CalibrationResult.from_json(before.to_json()) == before


def test_the_json_is_strict_and_says_what_is_in_it():
    content = strictly(result(**SCORES).to_json())
    assert content["edges"] == "right" and content["num_samples"] == 5
    assert content["metrics"]["ece"] == pytest.approx(0.39)
    assert [content["metrics"][name] for name in ("nll_true", "auroc", "log")] == ["inf", "nan", "-inf"]
    assert content["scores"] == list(SCORES)
    assert len(content["bins"]) == 4
    assert content["bins"][0] == {"lower": 0, "upper": 0.25, "count": 1, "confidence_sum": 0.25, "success_sum": 1}


@pytest.mark.filterwarnings("ignore:.*there are no samples:RuntimeWarning")
def test_an_empty_result_can_be_written_compared_and_printed():
    empty = CalibrationResult(bin_statistics(torch.zeros(0), torch.zeros(0).bool(), 2))
    assert strictly(empty.to_json())["metrics"]["ece"] == "nan"
    assert CalibrationResult.from_json(empty.to_json()) == empty
    assert "samples 0" in str(empty)


@pytest.mark.parametrize("change", [{"format": 1}, {"format": 3}, {"format": None}])
def test_a_result_of_another_format_is_refused(change):
    content = {k: v for k, v in (json.loads(result().to_json()) | change).items() if v is not None}
    with pytest.raises(UserError, match=f"has format {change['format'] or 1}, and format 2 is read: measure again$"):
        CalibrationResult.from_json(json.dumps(content))


def test_results_are_equal_when_every_number_is():
    assert result(accuracy=0.5) == result(accuracy=0.5)
    assert result(auroc=math.nan) == result(auroc=math.nan)
    assert result("right") != result("left")
    assert result(accuracy=0.5) != result(accuracy=math.nextafter(0.5, 1))
    assert result(accuracy=0.5) != result(brier=0.5)
    assert result() != "a string"
    more = bin_statistics(HAND.repeat(2), HAND_SUCCESS.repeat(2), 4)
    assert result() != CalibrationResult(more, "right")  # the same metrics, other counts


def test_a_result_lists_its_metrics_and_then_its_scores():
    assert list(result(accuracy=0.6).metrics) == ["ece", "msce", "mce", "mce_squared", "accuracy"]
    assert result(accuracy=0.6).metrics["mce"] == pytest.approx(0.75)
    assert (result().num_bins, result().num_samples) == (4, 5)


def test_a_result_is_no_dictionary_key():
    with pytest.raises(TypeError):
        hash(result())


def test_a_result_can_be_copied_and_pickled():
    assert copy.deepcopy(result(**SCORES)) == result(**SCORES)
    assert pickle.loads(pickle.dumps(result(**SCORES))) == result(**SCORES)


def test_the_printed_table():
    assert str(result(accuracy=0.6)).splitlines() == [
        "  confidence bin       count  confidence   success       gap",
        "  [0.000, 0.250]           1      0.2500    1.0000   +0.7500",
        "  (0.250, 0.500]           1      0.5000    0.0000   -0.5000",
        "  (0.500, 0.750]           0           -         -         -",
        "  (0.750, 1.000]           3      0.9000    0.6667   -0.2333",
        "samples 5",
        "ece              0.390000",
        "msce             0.195167",
        "mce              0.750000",
        "mce_squared      0.562500",
        "accuracy         0.600000",
    ]


def test_the_printed_table_shows_which_edge_belongs_to_a_bin():
    rows = [row.split("  ")[1] for row in str(result("left")).splitlines()[1:5]]
    assert rows == ["[0.000, 0.250)", "[0.250, 0.500)", "[0.500, 0.750)", "[0.750, 1.000]"]
