"""Thresholds for a wanted error rate, with the guarantee that they come with."""

import math

import pytest
import torch
from scipy import stats

from uncertainty_core import threshold_for_risk
from uncertainty_core.functional.risk import clopper_pearson

EVEN = torch.arange(200) / 200
LAST_20_WRONG = torch.arange(200) >= 180


@pytest.mark.parametrize(("events", "total", "delta"), [(0, 7, 0.05), (3, 40, 0.0025), (700, 5000, 0.1), (6, 7, 0.5)])
def test_bound_is_that_of_clopper_and_pearson(events, total, delta):
    expected = stats.beta.ppf(1 - delta, events + 1, total - events)
    assert clopper_pearson(events, total, delta) == pytest.approx(expected, rel=1e-9)


def test_without_events_or_draws():
    # (1 - p)^100 = 0.05
    assert clopper_pearson(0, 100, 0.05) == pytest.approx(1 - 0.05 ** (1 / 100), rel=1e-12)
    assert clopper_pearson(0, 0, 0.05) == clopper_pearson(4, 4, 0.05) == 1


def test_accepts_what_the_bound_allows():
    # 20 thresholds share 0.05. The 180 most certain hold no error: 1 - 0.0025^(1/180) = 0.0327; the 190 hold ten.
    found = threshold_for_risk(EVEN, LAST_20_WRONG, risk=0.04)
    assert found.threshold == pytest.approx(0.9)  # the first that is not accepted
    assert found[1:3] == (0.9, 0)
    assert found.bound == pytest.approx(1 - 0.0025 ** (1 / 180))
    # at most 20 of 200 are wrong with a bound of 0.17
    everything = threshold_for_risk(EVEN, LAST_20_WRONG, risk=0.2)
    assert everything[:3] == (math.inf, 1, 0.1)
    # 0.0327 is the best that there is
    nothing = threshold_for_risk(EVEN, LAST_20_WRONG, risk=0.03)
    assert nothing.threshold == -math.inf
    assert nothing.coverage == 0


def test_equals_are_accepted_together_or_not_at_all():
    # half of the samples are equal: thresholds accept none of them or, with the last, all
    uncertainty = torch.cat((torch.zeros(100), torch.ones(100)))
    found = threshold_for_risk(uncertainty, uncertainty == 1, risk=0.1)
    assert (found.threshold, found.coverage, found.risk) == (1, 0.5, 0)


def test_the_guarantee_holds():
    # the true error rate below t is t / 2: errors at random with probability u. Missed in at most 5 % of 100 draws.
    generator, missed = torch.Generator().manual_seed(0), 0
    for _ in range(100):
        uncertainty = torch.rand(300, generator=generator)
        error = torch.rand(300, generator=generator) < uncertainty
        threshold = min(threshold_for_risk(uncertainty, error, risk=0.2, num_coverages=4).threshold, 1)
        missed += threshold / 2 > 0.2
    assert missed <= 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"risk": 0.0}, r"risk must lie in \(0, 1\)"),
        ({"delta": 1.0}, r"delta must lie in \(0, 1\)"),
        ({"uncertainty": EVEN * math.nan}, "uncertainty must be finite"),
        ({"error": LAST_20_WRONG.float()}, "event must be bool"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        threshold_for_risk(**{"uncertainty": EVEN, "error": LAST_20_WRONG, "risk": 0.1} | wrong)
