"""Calibrators of scores: cases by hand, properties, and the errors of bad input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty_core.recalibration import (
    METHODS,
    Beta,
    Histogram,
    Isotonic,
    Linear,
    Platt,
    Temperature,
    fit_beta,
    fit_class_wise,
    fit_histogram,
    fit_isotonic,
    fit_linear,
    fit_named,
    fit_platt,
    fit_temperature,
    from_json,
)

FITS = {method: fit_named(method) for method in METHODS}
EACH_METHOD = pytest.mark.parametrize("method", METHODS)
NAMES = ("a", "b", "c")


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def drawn(n=400, seed=0):
    """Overconfident scores, hits, and categories of which the last has one sample."""
    random = np.random.RandomState(seed)
    true = random.uniform(0.02, 0.98, n)
    score = torch.from_numpy(true).logit().mul(1.7).sigmoid()
    category = torch.from_numpy(random.randint(0, 2, n))
    category[-1] = 2
    return score, torch.from_numpy(random.uniform(size=n) < true).double(), category


def cross_entropy(probability, target):
    return torch.nn.functional.binary_cross_entropy(probability, target).item()


@pytest.mark.parametrize(
    ("calibrator", "scores", "expected"),
    [
        # the log-odds of 0.9 are log 9; half of them are log 3, whose probability is 3/4
        (Temperature(2.0), (0.9, 0.5, 0.1), (0.75, 0.5, 0.25)),
        # 1/2 log 9 + log 3 = log 9
        (Platt(0.5, math.log(3)), (0.9, 0.5), (0.9, 0.75)),
        # odds of s^2 / (1 - s) · 2: 1/2 gives 1/4 · 2 · 2 = 1
        (Beta(2.0, 1.0, math.log(2)), (0.5,), (0.5,)),
        # a = b = 0 leaves the constant: odds 3
        (Beta(0.0, 0.0, math.log(3)), (0.0, 0.2, 1.0), (0.75,) * 3),
        # bins (0, 1/2] and (1/2, 1]; 0 is in the first
        (Histogram((0.1, 0.8)), (0.0, 0.5, 0.51, 1.0), (0.1, 0.1, 0.8, 0.8)),
        # half way between the knots is half the way up; level beyond them
        (Isotonic((0.2, 0.6), (0.1, 0.5)), (0.0, 0.2, 0.4, 0.6, 1.0), (0.1, 0.1, 0.3, 0.5, 0.5)),
        (Isotonic((0.5,), (0.3,)), (0.0, 0.5, 1.0), (0.3,) * 3),
        (Linear(2.0, -0.5), (0.2, 0.5, 0.8), (0.0, 0.5, 1.0)),
    ],
)
def test_maps_by_hand(calibrator, scores, expected):
    torch.testing.assert_close(calibrator(tensor(*scores)), tensor(*expected))
    assert calibrator(torch.tensor(scores)).dtype == torch.float32
    assert from_json(calibrator.to_json()) == calibrator


def test_fits_by_hand():
    # 0.9 comes true 3 times in 4: 0.75 is what T = 2 makes of 0.9
    three_of_four = torch.full((4,), 0.9), tensor(1, 1, 1, 0)
    assert fit_temperature(*three_of_four).temperature == pytest.approx(2.0, abs=1e-6)
    # 0.9 comes true 3 times in 4, 0.5 once in 2: log 3 = a log 9 + b, 0 = b
    score, hit = tensor(0.9, 0.9, 0.9, 0.9, 0.5, 0.5), tensor(1, 1, 1, 0, 1, 0)
    assert vars(fit_platt(score, hit)) == pytest.approx({"slope": 0.5, "intercept": 0}, abs=1e-6)
    # an IoU of 0.75 each time is the same as 3 hits in 4
    assert fit_temperature(tensor(0.9), tensor(0.75)).temperature == pytest.approx(2.0, abs=1e-6)
    # bins of thirds: (0, 0] of nothing is 1/6, the others 1/2 and 1
    assert fit_histogram(tensor(0.5, 0.6, 0.7), tensor(1, 0, 1), 3).values == pytest.approx((1 / 6, 1 / 2, 1))
    # 0.4 hits and 0.6 misses: they pool to 1/2; ties at 0.8 count once, by their mean 1/2, which pools too
    pooled = fit_isotonic(tensor(0.2, 0.4, 0.6, 0.8, 0.8, 0.9), tensor(0, 1, 0, 1, 0, 1))
    assert pooled == Isotonic((0.2, 0.4, 0.8, 0.9), (0.0, 0.5, 0.5, 1.0))
    # through (0.2, 0.1) and (0.6, 0.3); one that would fall is level at the mean
    line = fit_linear(tensor(0.2, 0.6), tensor(0.1, 0.3))
    assert (line.slope, line.intercept) == pytest.approx((0.5, 0))
    assert fit_linear(tensor(0.2, 0.6), tensor(0.3, 0.1)) == Linear(0.0, 0.2)


@EACH_METHOD
def test_one_sample(method):
    # what is left of freedom keeps the map near the identity: Platt moves by the same log-odds everywhere, or nearly so
    calibrator = FITS[method](tensor(0.9), tensor(0.75))
    at = calibrator(tensor(0.0, 0.9, 1.0))
    assert at.isfinite().all()
    assert at[1].item() == pytest.approx(0.75, abs=1e-6)


@EACH_METHOD
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_all_hits_and_no_hits(method, target):
    score = tensor(0.0, 0.3, 0.5, 0.7, 0.7, 1.0)
    after = FITS[method](score, torch.full((6,), target))(score)
    assert ((after >= 0) & (after <= 1)).all() and (after.diff() >= 0).all()
    if method not in (
        "temperature",
        "histogram",
    ):  # the former cannot move 0.5, the latter leaves no bin of these empty
        assert after == pytest.approx(np.full(6, target), abs=1e-4)


@EACH_METHOD
def test_scores_that_know_nothing_or_all(method):
    sure_and_wrong = FITS[method](tensor(1.0, 0.0), tensor(0, 1))(tensor(0.0, 0.5, 1.0))
    assert sure_and_wrong.isfinite().all()
    if method != "histogram":  # its bins know no order
        assert sure_and_wrong == pytest.approx(np.full(3, 0.5), abs=0.01)
    # right before, right afterwards
    assert FITS[method](tensor(0.0, 1.0), tensor(0, 1))(tensor(0.0, 1.0)) == pytest.approx([0, 1], abs=1e-9)


@EACH_METHOD
@given(data=st.data())
def test_never_worse_than_before(method, data):
    pairs = data.draw(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
    score, target = (tensor(*values) for values in zip(*pairs, strict=True))
    after = FITS[method](score, target)(score)
    assert ((after >= 0) & (after <= 1)).all()
    if method in ("temperature", "platt", "beta"):
        inside = score.clamp(2e-16, 1 - 2e-16)
        assert cross_entropy(after, target) <= cross_entropy(inside, target) + 1e-6
    else:
        assert (after - target).square().sum() <= (score - target).square().sum() + 1e-9
    if method != "histogram":
        assert (after[score.argsort()].diff() >= -1e-12).all()


@pytest.mark.parametrize("target", ["hit", "iou"])
@pytest.mark.parametrize(("fit", "numbers"), [(fit_temperature, 1), (fit_platt, 2), (fit_beta, 3)])
def test_no_neighbour_is_better(fit, numbers, target):
    score, hit, _ = drawn()
    aim = hit if target == "hit" else (hit + score) / 2
    calibrator = fit(score, aim)
    best = cross_entropy(calibrator(score), aim)
    for k in range(numbers):
        for step in (-1e-3, 1e-3):
            moved = list(vars(calibrator).values())
            moved[k] += step
            assert cross_entropy(type(calibrator)(*moved)(score), aim) > best


def test_beta_at_its_bound():
    # hits are as likely at 0.1 as at 0.5 and rarer at 0.9: the best a and b are 0, or one of them
    score = tensor(*[0.1] * 4, *[0.5] * 4, *[0.9] * 4)
    fitted = fit_beta(score, tensor(*[1, 1, 1, 0] * 2, 0, 0, 0, 1))
    assert min(fitted.a, fitted.b) == 0
    assert fit_platt(score, tensor(*[1, 1, 1, 0] * 2, 0, 0, 0, 1)).slope == 0


@EACH_METHOD
def test_class_wise_is_each_class_by_itself(method):
    score, target, category = drawn()
    fit = FITS[method]
    calibrator = fit_class_wise(fit, score, target, category, NAMES)
    for c in (0, 1):
        assert calibrator.maps[c] == fit(score[category == c], target[category == c])
    # a class with one detection shares the fit of all
    assert calibrator.maps[2] == fit(score, target)
    assert calibrator.pooled == ("c",) and calibrator.counts[2] == 1
    grid = torch.linspace(0, 1, 47, dtype=torch.float64).repeat(3)
    at = torch.arange(3).repeat_interleave(47)
    expected = torch.cat([calibrator.maps[c](grid[:47]) for c in range(3)])
    torch.testing.assert_close(calibrator(grid, at), expected, rtol=0, atol=1e-12)
    assert from_json(calibrator.to_json()) == calibrator


@pytest.mark.parametrize(("n", "pooled"), [(19, ("b", "c")), (20, ("c",))])
def test_classes_with_less_than_twenty_detections_share(n, pooled):
    category = torch.tensor([0] * 30 + [1] * n)
    score = torch.linspace(0.1, 0.9, 30 + n, dtype=torch.float64)
    assert fit_class_wise(fit_platt, score, score, category, NAMES).pooled == pooled


@EACH_METHOD
def test_gradients_flow(method):
    score, target, category = drawn()
    inner = score[10:20].clone().requires_grad_()
    calibrator = fit_class_wise(FITS[method], score, target, category, NAMES)
    calibrator(inner, category[10:20]).sum().backward()
    rising = method != "histogram"
    assert (inner.grad >= 0).all() and (inner.grad > 0).any() == rising
    if method in ("temperature", "platt", "beta"):
        assert torch.autograd.gradcheck(lambda s: calibrator(s, category[10:20]), inner)


@pytest.mark.parametrize("method", ["beta", "isotonic"])  # one of each family
def test_traces_with_any_number_of_detections(method):
    score, target, category = drawn()
    calibrator = fit_class_wise(FITS[method], score, target, category, NAMES)

    class Module(torch.nn.Module):
        def forward(self, score, category):
            return calibrator(score, category)

    dynamic = {
        "score": {0: torch.export.Dim("n", min=0, max=10**6)},
        "category": {0: torch.export.Dim("n", min=0, max=10**6)},
    }
    exported = torch.export.export(Module(), (score[:9], category[:9]), dynamic_shapes=dynamic).module()
    traced = torch.jit.trace(Module(), (score[:9], category[:9]), check_trace=False)
    for module in (exported, traced):
        torch.testing.assert_close(module(score[:50], category[:50]), calibrator(score[:50], category[:50]))


@EACH_METHOD
@pytest.mark.parametrize(
    ("score", "target", "sentence"),
    [
        ((), (), "score is empty: there are no samples to fit a calibrator to"),
        ((0.5, 1.5), (0, 1), r"score must lie in \[0, 1\], but score\[1\] is 1.5"),
        ((0.5, math.nan), (0, 1), r"score must be finite, but score\[1\] is nan"),
        ((0.5, 0.6), (0, 2), r"target must lie in \[0, 1\], but target\[1\] is 2.0"),
        ((0.5, 0.6), (0,), "score and target must have the same shape"),
    ],
)
def test_bad_samples(method, score, target, sentence):
    with pytest.raises(ValueError, match=sentence):
        FITS[method](tensor(*score), tensor(*target))


@EACH_METHOD
@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_bad_scores(method, bad):
    score, target, category = drawn()
    calibrator = FITS[method](score, target)
    with pytest.raises(ValueError, match="score must"):
        calibrator(tensor(0.5, bad))
    class_wise = fit_class_wise(FITS[method], score, target, category, NAMES)
    with pytest.raises(ValueError, match="score must"):
        class_wise(tensor(bad), torch.tensor([0]))


def test_class_wise_needs_known_categories():
    calibrator = fit_class_wise(fit_platt, *drawn(), NAMES)
    with pytest.raises(ValueError, match="needs the category of each score"):
        calibrator(tensor(0.5))
    with pytest.raises(ValueError, match=r"category must lie in \[0, 3\), but category\[0\] is 3"):
        calibrator(tensor(0.5), torch.tensor([3]))


@pytest.mark.parametrize("bins", [1, 2, 3, 4, 7, 8, 9, 40])
def test_search_in_onnx_finds_what_bucketize_finds(bins, monkeypatch):
    calibrator = Histogram(tuple((k + 1) / (bins + 1) for k in range(bins)))  # which jumps at each edge
    edges = torch.arange(bins + 1, dtype=torch.float64) / bins
    score = torch.cat((edges, torch.linspace(0, 1, 101, dtype=torch.float64)))
    expected = calibrator(score)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    monkeypatch.setattr(torch, "bucketize", None)
    assert torch.equal(calibrator(score), expected)
