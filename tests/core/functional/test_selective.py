"""Rankings, and the curves and areas made of them, against sorting and counting."""

import itertools
import math
import re

import pytest
import references as ref
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, ranked

from uncertainty_core.functional.selective import Ranking, aupr, aurc, auroc, fpr_at_tpr, ranking, risk_coverage

AREAS = {"aurc": (aurc, ref.aurc), "auroc": (auroc, ref.auroc), "aupr": (aupr, ref.average_precision)}
NEEDS_BOTH = {"AUROC": auroc, "AUPR": aupr, "FPR": fpr_at_tpr}
CLOSE = {"rel": 1e-12, "abs": 1e-13}

# From certain to uncertain: right | right and wrong, tied | wrong | right
HAND = torch.tensor([0.5, 0.125, 0.25, 1.0, 0.25], dtype=torch.float64)
HAND_EVENT = torch.tensor([True, False, True, False, False])


def levels_and_events(drawn):
    return drawn.uncertainty.tolist(), drawn.event.tolist()


def bin_of(values, num_bins):
    """The bins that stand for the levels once an uncertainty is binned."""
    limits = ref.edge_values(num_bins, values.dtype)
    return [ref.bin_by_loop(value, limits, "right") for value in values.tolist()]


def has_both(event):
    return any(event) and not all(event)


# Rankings


def test_a_hand_made_ranking():
    count, events = ranking(HAND, HAND_EVENT)
    assert count.tolist() == [1, 2, 1, 1] and events.tolist() == [0, 1, 1, 0]
    count, events = ranking(HAND, HAND_EVENT, num_bins=4)  # (0, .25] holds .125 and both .25
    assert count.tolist() == [3, 1, 0, 1] and events.tolist() == [1, 1, 0, 0]
    assert count.dtype == events.dtype == torch.int64


@given(ranked(), st.sampled_from([None, 1, 7, 10, 1000]))
def test_a_ranking_counts_the_samples_of_each_level(drawn, num_bins):
    uncertainty, event = levels_and_events(drawn)
    if num_bins is None:
        level, names = uncertainty, sorted(set(uncertainty))
    else:
        level, names = bin_of(drawn.uncertainty, num_bins), range(num_bins)
    got = ranking(*drawn, num_bins)
    assert got.count.tolist() == [level.count(name) for name in names]
    assert got.events.tolist() == [sum(e for v, e in zip(level, event, strict=True) if v == name) for name in names]


@given(ranked(), st.integers(0, 25), st.randoms())
def test_binned_rankings_of_parts_add_up(drawn, cut, random):
    order = list(range(len(drawn.event)))
    random.shuffle(order)
    order = torch.tensor(order, dtype=torch.int64)
    parts = [ranking(drawn.uncertainty[i], drawn.event[i], 10) for i in (order[:cut], order[cut:])]
    whole = ranking(*drawn, 10)
    assert torch.equal(parts[0].count + parts[1].count, whole.count)
    assert torch.equal(parts[0].events + parts[1].events, whole.events)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64])
def test_an_exact_ranking_takes_any_finite_number(dtype):
    count, events = ranking(torch.tensor([-3, 100, 0, 0]).to(dtype), torch.tensor([True, False, True, False]))
    assert count.tolist() == [1, 2, 1] and events.tolist() == [1, 1, 0]


def test_both_zeros_are_one_level():
    assert ranking(torch.tensor([-0.0, 0.0]), torch.tensor([True, False])).count.tolist() == [2]


# Curves and areas


def test_the_hand_worked_risk_coverage_curve():
    coverage, risk = risk_coverage(ranking(HAND, HAND_EVENT))
    assert coverage.tolist() == [1 / 5, 3 / 5, 4 / 5, 1]
    assert risk.tolist() == [0, 1 / 3, 2 / 4, 2 / 5]
    assert coverage.dtype == risk.dtype == torch.float64


def test_empty_levels_are_no_points_of_the_curve():
    coverage, risk = risk_coverage(Ranking(torch.tensor([0, 1, 0, 3, 0]), torch.tensor([0, 1, 0, 0, 0])))
    assert coverage.tolist() == [0.25, 1] and risk.tolist() == [1, 0.25]


@given(ranked(min_size=1))
def test_risk_coverage_equals_the_loop(drawn):
    coverage, risk = ref.risk_coverage(*levels_and_events(drawn))
    got_coverage, got_risk = risk_coverage(ranking(*drawn))
    assert got_coverage.tolist() == pytest.approx(coverage, **CLOSE)
    assert got_risk.tolist() == pytest.approx(risk, **CLOSE)


def test_coverage_is_exact_beyond_the_integers_of_float32():
    count = torch.tensor([2**24 + 1, 2**24 - 1])
    coverage, risk = risk_coverage(Ranking(count, torch.tensor([2**24, 0])))
    assert coverage.tolist() == [(2**24 + 1) / 2**25, 1]
    assert risk.tolist() == [2**24 / (2**24 + 1), 0.5]


def test_hand_worked_areas():
    hand = ranking(HAND, HAND_EVENT)
    # risks 0/1, .5/2, 1/3, 2/4, 2/5: the two tied ones bring half an error each
    assert aurc(hand).item() == pytest.approx((0 + 1 / 4 + 1 / 3 + 1 / 2 + 2 / 5) / 5, rel=1e-14)
    # events .25, .5 against .125, .25, 1: wins 1 + 1/2 + 0 and 1 + 1 + 0 of 6
    assert auroc(hand).item() == pytest.approx(3.5 / 6, rel=1e-15)
    # down to 1: 0 of 1; to .5: recall 1/2 at precision 1/2; to .25: recall 1 at precision 2/4
    assert aupr(hand).item() == pytest.approx(0.5 * 0.5 + 0.5 * 0.5, rel=1e-15)
    # the second event is found at .25, with two of the three others; the first one at .5, with one
    assert fpr_at_tpr(hand).item() == pytest.approx(2 / 3, rel=1e-15)
    assert fpr_at_tpr(hand, 0.5).item() == pytest.approx(1 / 3, rel=1e-15)


@pytest.mark.parametrize("name", AREAS)
@given(ranked(min_size=1))
def test_areas_equal_the_loop(name, drawn):
    area, reference = AREAS[name]
    uncertainty, event = levels_and_events(drawn)
    if name == "aurc" or has_both(event):
        value = area(ranking(*drawn))
        assert value.dtype == torch.float64 and value.shape == ()
        assert value.item() == pytest.approx(reference(uncertainty, event), **CLOSE)


@pytest.mark.parametrize("name", AREAS)
@given(ranked(min_size=1), st.sampled_from([1, 4, 1000]))
def test_areas_of_bins_are_those_with_the_bins_as_levels(name, drawn, num_bins):
    area, reference = AREAS[name]
    event = drawn.event.tolist()
    if name == "aurc" or has_both(event):
        value = area(ranking(*drawn, num_bins)).item()
        assert value == pytest.approx(reference(bin_of(drawn.uncertainty, num_bins), event), **CLOSE)


@given(ranked(min_size=1), st.sampled_from([0.05, 0.1, 0.5, 0.55, 0.9, 0.95, 1.0]))
def test_fpr_at_tpr_equals_the_loop(drawn, tpr):
    uncertainty, event = levels_and_events(drawn)
    if has_both(event):
        expected = ref.fpr_at_tpr(uncertainty, event, tpr)
        assert fpr_at_tpr(ranking(*drawn), tpr).item() == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("tpr", [0.05, 0.07, 0.1, 0.29, 0.55, 0.57, 0.58, 0.7, 0.9, 0.95, 0.99])
def test_a_share_of_the_events_found_to_the_last_one_is_enough(tpr):
    # exactly the share tpr of the events are the most uncertain, then come the 9 others, then the rest
    for size in (100, 94_523_269_800):
        found = size // 100 * round(100 * tpr)
        count, events = torch.tensor([size - found, 9, found]), torch.tensor([size - found, 0, found])
        assert fpr_at_tpr(Ranking(count, events), tpr).item() == 0


def test_the_area_under_the_curve_is_the_mean_over_all_orders_of_tied_samples():
    level, error = [0, 1, 1, 1, 2, 2], [True, False, True, False, True, False]
    areas = []
    for order in itertools.permutations(range(6)):
        if [level[i] for i in order] == level:
            wrong = itertools.accumulate(error[i] for i in order)
            areas.append(sum(w / n for n, w in enumerate(wrong, start=1)) / 6)
    assert len(areas) == 12  # 1! · 3! · 2!
    expected = math.fsum(areas) / 12
    assert aurc(ranking(torch.tensor(level), torch.tensor(error))).item() == pytest.approx(expected, rel=1e-14)
    assert ref.aurc(level, error) == pytest.approx(expected, rel=1e-14)


def test_areas_of_billions_of_samples():
    # n right, then n wrong, each tied: sum over the second half of i / (n + i) / 2n = (1 - log 2) / 2 + O(1/n)
    n = 2**40
    errors = Ranking(torch.tensor([n, n]), torch.tensor([0, n]))
    assert aurc(errors).item() == pytest.approx((1 - math.log(2)) / 2, rel=1e-10)
    assert auroc(errors).item() == 1
    assert aupr(errors).item() == 1
    assert fpr_at_tpr(errors).item() == 0


def test_a_perfect_a_useless_and_an_inverted_ranking():
    event = torch.tensor([False, False, False, True])
    perfect, useless, inverted = (
        ranking(torch.tensor(values), event) for values in ([0.1, 0.2, 0.3, 0.9], [0.5] * 4, [0.9, 0.8, 0.7, 0.1])
    )
    assert [auroc(r).item() for r in (perfect, useless, inverted)] == [1, 0.5, 0]
    assert [aupr(r).item() for r in (perfect, useless, inverted)] == [1, 0.25, 0.25]
    assert [fpr_at_tpr(r).item() for r in (perfect, useless, inverted)] == [0, 1, 1]
    # 1/4 of error only once all are covered; 1/4 expected at every n; 1, 1/2, 1/3, 1/4
    expected = [1 / 16, 1 / 4, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4]
    assert [aurc(r).item() for r in (perfect, useless, inverted)] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("uncertainty", "event", "num_bins", "message"),
    [
        ([0.5, 2.0], [True, False], 10, "uncertainty must lie in [0, 1], but uncertainty[1] is 2.0"),
        ([math.nan, 2.0], [True, False], 10, "uncertainty must be finite, but uncertainty[0] is nan"),
        ([0.5, math.nan], [True, False], None, "uncertainty must be finite, but uncertainty[1] is nan"),
        ([-math.inf, 0.5], [True, False], None, "uncertainty must be finite, but uncertainty[0] is -inf"),
        ([0.5, 0.5], [1, 0], 10, "event must be bool, got torch.int64"),
        ([0.5, 0.5], [1.0, 0.0], None, "event must be bool, got torch.float32"),
        ([0.5], [True, False], None, "uncertainty and event must have the same shape, got (1,) and (2,)"),
        ([0.5, 0.5], [True, False], 0, "num_bins must be an integer >= 1, got 0"),
        ([1, 0], [True, False], 10, "uncertainty must be floating point, got torch.int64"),
    ],
)
def test_bad_rankings_are_refused(uncertainty, event, num_bins, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ranking(torch.tensor(uncertainty), torch.tensor(event), num_bins)


@pytest.mark.parametrize("tpr", [0, -0.5, 1.01, math.nan])
def test_a_true_positive_rate_is_a_share(tpr):
    with pytest.raises(ValueError, match=re.escape(f"tpr must lie in (0, 1], got {tpr}")):
        fpr_at_tpr(ranking(HAND, HAND_EVENT), tpr)


@pytest.mark.parametrize("num_bins", [None, 10])
def test_nothing_has_no_area_and_an_empty_curve(num_bins):
    nothing = ranking(torch.zeros(0), torch.zeros(0, dtype=torch.bool), num_bins)
    with pytest.warns(RuntimeWarning, match="AURC is NaN: there are no samples"):
        assert aurc(nothing).isnan()
    assert [len(points) for points in risk_coverage(nothing)] == [0, 0]
    for name, area in NEEDS_BOTH.items():
        with pytest.warns(RuntimeWarning, match=f"{name} is NaN: it needs both events and non-events"):
            assert area(nothing).isnan()


@pytest.mark.parametrize("name", NEEDS_BOTH)
@pytest.mark.parametrize("event", [True, False])
def test_events_alone_cannot_be_told_apart(name, event):
    one_kind = ranking(torch.tensor([0.1, 0.5]), torch.tensor([event, event]))
    with pytest.warns(RuntimeWarning, match=f"{name} is NaN: it needs both events and non-events"):
        assert NEEDS_BOTH[name](one_kind).isnan()


@pytest.mark.parametrize("event", [True, False])
def test_a_single_sample_has_a_curve_of_one_point(event):
    one = ranking(torch.tensor([1.0]), torch.tensor([event]), 10)
    assert [points.tolist() for points in risk_coverage(one)] == [[1], [event]]
    assert aurc(one).item() == event
