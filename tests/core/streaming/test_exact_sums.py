"""Sums that do not depend on the order of their terms."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references import fractions

from uncertainty_core.streaming.exact_sums import from_limbs, group_counts, group_sums, to_limbs

UNIT = Fraction(1, 2**48)

below_1024 = st.floats(0, 1024, exclude_max=True)


def exact(limbs):
    """The rational number that two limbs stand for."""
    high, low = limbs.tolist()
    return Fraction(high, 2**24) + Fraction(low, 2**48)


@given(below_1024)
def test_limbs_are_the_value_rounded_down_to_the_unit(value):
    limbs = to_limbs(torch.tensor(value, dtype=torch.float64))
    assert exact(limbs) == math.floor(Fraction(value) / UNIT) * UNIT
    assert 0 <= limbs[1] < 2**24


def test_limbs_of_hand_worked_numbers():
    # 0.75 = 12582912 · 2⁻²⁴;  2⁻²⁴ + 3·2⁻⁴⁸;  2⁻⁴⁹ is below the unit;  1023.5 = 17171480576 · 2⁻²⁴
    values = torch.tensor([0.75, 2.0**-24 + 3 * 2.0**-48, 2.0**-49, 1023.5], dtype=torch.float64)
    assert to_limbs(values).tolist() == [[12582912, 1, 0, 17171480576], [0, 3, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_floats_survive_whole(dtype):
    # 24 bits and a value of at least 2⁻²⁴ leave no bit below 2⁻⁴⁸
    values = torch.tensor([1.0, 0.9, 0.3, 0.1, 1e-3, 2.0**-24, 0.0]).to(dtype)
    assert torch.equal(from_limbs(to_limbs(values)), values.double())


@given(st.lists(below_1024, min_size=1, max_size=30), st.randoms())
def test_a_sum_is_exact_and_the_same_in_any_order(values, random):
    limbs = to_limbs(torch.tensor(values, dtype=torch.float64))
    total = limbs.sum(1)
    expected = sum(math.floor(Fraction(value) / UNIT) * UNIT for value in values)
    assert exact(total) == expected
    assert from_limbs(total).item() == pytest.approx(float(expected), rel=3e-16, abs=0)
    order = list(range(len(values)))
    random.shuffle(order)
    assert torch.equal(from_limbs(limbs[:, order].sum(1)), from_limbs(total))


@given(st.integers(0, 2**62), st.integers(0, 2**38))
def test_equal_totals_give_equal_floats_however_split(low, carry):
    carry = min(carry, low >> 24)
    split = torch.tensor([[0, carry], [low, low - (carry << 24)]])
    first, second = from_limbs(split).tolist()
    assert first == second


def test_two_to_the_38_terms_of_one_fit():
    limbs = to_limbs(torch.tensor(1.0)) * 2**38
    assert from_limbs(limbs).item() == 2.0**38


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), max_size=30))
def test_groups_are_summed_apart(members):
    group = torch.tensor([g for g, _ in members], dtype=torch.int64)
    values = torch.tensor([v for _, v in members], dtype=torch.float32)
    sums, counts = group_sums(values, group, 5), group_counts(group, 5)
    for k in range(5):
        # float32 below 2⁻²⁴ may lose bits below the unit
        expected = sum(math.floor(v / UNIT) * UNIT for v in fractions(values[group == k]))
        assert exact(sums[:, k]) == expected
        assert counts[k] == [g for g, _ in members].count(k)


def test_booleans_sum_as_zero_and_one():
    group, values = torch.tensor([0, 0, 2, 0]), torch.tensor([True, False, True, True])
    assert torch.equal(group_sums(values, group, 3), group_sums(values.float(), group, 3))
    assert from_limbs(group_sums(values, group, 3)).tolist() == [2, 0, 1]


def test_one_call_counts_beyond_the_integers_of_float32():
    group, values = torch.zeros(2**24 + 3, dtype=torch.int64), torch.ones(1, dtype=torch.bool).expand(2**24 + 3)
    assert group_counts(group, 1).tolist() == [2**24 + 3]
    assert from_limbs(group_sums(values, group, 1)).tolist() == [2**24 + 3]
