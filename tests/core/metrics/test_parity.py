"""The same numbers as torchmetrics, netcal and scikit-learn where the rules agree, and where they do not, why.

Both calibration libraries put an edge into the bin above it, so they are compared with `edges="left"`. Each of the
tests named `differs` shows an input, both values, and the reason in its docstring.
"""

import warnings

import numpy as np
import pytest
import scipy
import torch
from packaging import version
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    multiclass_calibration_error,
)

from uncertainty_core.functional.calibration import bin_statistics, ece, mce, msce
from uncertainty_core.functional.selective import aupr, auroc, fpr_at_tpr, ranking
from uncertainty_core.metrics.calibration import CalibrationMetric, ConfidenceCalibration

with warnings.catch_warnings():  # its dependencies deprecate one another
    warnings.simplefilter("ignore")
    from netcal.metrics import ECE as NETCAL_ECE
    from netcal.metrics import MCE as NETCAL_MCE

BINS = [1, 2, 10, 15, 100]
TORCHMETRICS_NORMS = {"l1": ece, "l2": lambda bins: msce(bins).sqrt(), "max": mce}


def binary(size=2000, seed=0, dtype=torch.float64):
    """Overconfident confidences off the edges, and whether they came true."""
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(size, generator=generator, dtype=torch.float64).to(dtype)
    return confidence, torch.rand(size, generator=generator) < confidence**2


def multiclass(size=2000, num_classes=5, seed=0):
    """float32 probabilities, and labels drawn from a softer distribution."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, num_classes, generator=generator) * 2
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=generator).squeeze(1)
    return logits.softmax(1), labels


def netcal_ece(confidence, success, num_bins):
    return NETCAL_ECE(num_bins).measure(np.asarray(confidence), np.asarray(success).astype(int))


def ours(confidence, success, num_bins=10, edges="left", metric=ece):
    return metric(bin_statistics(torch.as_tensor(confidence), torch.as_tensor(success).bool(), num_bins, edges)).item()


def theirs(confidence, success, num_bins=10, norm="l1"):
    return binary_calibration_error(torch.as_tensor(confidence), torch.as_tensor(success).long(), num_bins, norm).item()


# Agreement


@pytest.mark.parametrize("norm", TORCHMETRICS_NORMS)
@pytest.mark.parametrize("num_bins", BINS)
def test_binary_calibration_equals_torchmetrics(num_bins, norm):
    confidence, success = binary()
    expected = theirs(confidence, success, num_bins, norm)
    assert ours(confidence, success, num_bins, metric=TORCHMETRICS_NORMS[norm]) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("norm", TORCHMETRICS_NORMS)
@pytest.mark.parametrize("num_bins", BINS)
def test_multiclass_calibration_equals_torchmetrics(num_bins, norm):
    probabilities, labels = multiclass()
    metric = CalibrationMetric(5, num_bins, "left")
    metric.update(probabilities, labels)
    expected = multiclass_calibration_error(probabilities, labels, 5, num_bins, norm).item()  # in float32
    assert TORCHMETRICS_NORMS[norm](metric.result().bins).item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("num_bins", BINS)
def test_binary_calibration_equals_netcal(num_bins):
    confidence, success = binary()
    assert ours(confidence, success, num_bins) == pytest.approx(netcal_ece(confidence, success, num_bins), rel=1e-11)
    expected = NETCAL_MCE(num_bins).measure(confidence.numpy(), success.long().numpy())
    assert ours(confidence, success, num_bins, metric=mce) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("num_bins", BINS)
def test_multiclass_calibration_equals_netcal(num_bins):
    probabilities, labels = multiclass()
    metric = CalibrationMetric(5, num_bins, "left")
    metric.update(probabilities, labels)
    computed = metric.compute()
    arrays = probabilities.numpy(), labels.numpy()
    assert computed["ece"].item() == pytest.approx(NETCAL_ECE(num_bins).measure(*arrays), rel=1e-6)
    assert computed["mce"].item() == pytest.approx(NETCAL_MCE(num_bins).measure(*arrays), rel=1e-6)


@pytest.mark.parametrize("num_bins", [2, 4, 8, 16])
def test_netcal_and_torchmetrics_put_an_edge_into_the_bin_above(num_bins):
    # Edges that are the same in every way of computing them; 1.0 is left out, see below. On and above every second edge
    # all come true, on and above the others none: the errors of the wrong neighbours would cancel.
    edge = torch.randint(num_bins, (200,), generator=torch.Generator().manual_seed(num_bins))
    confidence, success = edge.double() / num_bins, edge % 2 == 0
    confidence[::3] += 0.4 / num_bins
    left, right = (ours(confidence, success, num_bins, edges) for edges in ("left", "right"))
    assert left == pytest.approx(theirs(confidence, success, num_bins), rel=1e-11)
    assert left == pytest.approx(netcal_ece(confidence, success, num_bins), rel=1e-11)
    assert abs(left - right) > 0.05


@pytest.mark.parametrize("digits", [2, 12])
@pytest.mark.parametrize("seed", range(5))
def test_areas_equal_scikit_learn_and_torchmetrics(digits, seed):
    uncertainty, event = binary(500, seed)
    uncertainty = uncertainty.round(decimals=digits)  # with two digits nearly all are tied
    events, arrays = ranking(uncertainty, event), (event.numpy(), uncertainty.numpy())
    assert auroc(events).item() == pytest.approx(roc_auc_score(*arrays), rel=1e-12)
    assert aupr(events).item() == pytest.approx(average_precision_score(*arrays), rel=1e-12)
    assert auroc(events).item() == pytest.approx(binary_auroc(uncertainty, event.long()).item(), rel=1e-5)
    assert aupr(events).item() == pytest.approx(binary_average_precision(uncertainty, event.long()).item(), rel=1e-5)
    fpr, tpr, _ = roc_curve(*arrays, drop_intermediate=False)
    assert fpr_at_tpr(events).item() == pytest.approx(fpr[tpr >= 0.95][0], rel=1e-12)


# Disagreement: torchmetrics


def test_differs_from_torchmetrics_on_confidence_one():
    """1.0 (wrong) and 0.95 (right), ten bins: torchmetrics 0.525, here 0.475.

    torchmetrics' bins are all open above, so 1.0 falls into an eleventh bin of its own, which no diagram shows:
    (|0 - 1| + |1 - 0.95|) / 2 = 0.525. Here 1.0 is in the last bin: |1/2 - 0.975| = 0.475. The maximum is 1 for 0.475.
    """
    confidence, success = torch.tensor([1.0, 0.95]).double(), torch.tensor([False, True])
    assert theirs(confidence, success) == pytest.approx(0.525)
    assert ours(confidence, success, edges="left") == ours(confidence, success, edges="right") == pytest.approx(0.475)
    assert theirs(confidence, success, norm="max") == 1
    assert ours(confidence, success, metric=mce) == pytest.approx(0.475)


def test_differs_from_torchmetrics_in_a_bin_of_more_than_two_to_the_24():
    """2²⁴ failures, then 2²³ successes, all of confidence 0.5: torchmetrics 0, here 1/6.

    torchmetrics adds ones in float32, which stops counting at 2²⁴: it sees 2²³ successes of 2²⁴ samples, a frequency of
    1/2 and no error. The truth is |1/3 - 1/2|.
    """
    failures, successes = 2**24, 2**23
    target = torch.zeros(failures + successes, dtype=torch.int64)
    target[failures:] = 1
    confidence = torch.full(target.shape, 0.5)
    assert binary_calibration_error(confidence, target, 10, validate_args=False).item() == 0
    metric = ConfidenceCalibration(10)
    metric.update(confidence[:failures], target[:failures] == 1)
    metric.update(confidence[failures:], target[failures:] == 1)
    assert metric.compute()["ece"].item() == pytest.approx(1 / 6, rel=1e-6)
    assert metric.bins.count[4] == failures + successes and metric.bins.success[4] == successes


def test_differs_from_torchmetrics_on_multiclass_logits():
    """Logits (2, -1), true class 0: torchmetrics 0.047, here a ValueError.

    torchmetrics takes a softmax as soon as one value lies outside [0, 1], so the same code measures something else in
    the first batch whose logits happen to lie inside: (0.9, 0.2) counts as it is.
    """
    logits, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([0])
    softmax = multiclass_calibration_error(logits, labels, 2, 10).item()
    assert softmax == pytest.approx(1 - logits.softmax(1)[0, 0].item()) == pytest.approx(0.047, abs=1e-3)
    inside = torch.tensor([[0.9, 0.2]])
    assert multiclass_calibration_error(inside, labels, 2, 10).item() == pytest.approx(0.1)
    for bad in (logits, inside):
        with pytest.raises(ValueError, match="are these logits"):
            CalibrationMetric(2).update(bad, labels)


def test_differs_from_torchmetrics_on_binary_logits():
    """Values 2 (right) and 0.5 (wrong): torchmetrics 0.371, here a ValueError.

    One value above 1 turns all of them into logits: sigmoid makes them 0.881 and 0.622.
    """
    values, success = torch.tensor([2.0, 0.5]), torch.tensor([True, False])
    first, second = values.sigmoid().tolist()
    assert theirs(values, success) == pytest.approx((1 - first + second) / 2) == pytest.approx(0.371, abs=1e-3)
    with pytest.raises(ValueError, match=r"confidence must lie in \[0, 1\], but confidence\[0\] is 2.0"):
        ours(values, success)


def test_differs_from_torchmetrics_on_nan():
    """Probabilities (NaN, 1), true class 0: torchmetrics 1.0, here a ValueError.

    NaN is not inside [0, 1], so torchmetrics takes a softmax, which is all NaN; sorting NaN into bins puts it beyond
    the last, as a success without confidence.
    """
    probabilities, labels = torch.tensor([[torch.nan, 1.0]]), torch.tensor([0])
    assert multiclass_calibration_error(probabilities, labels, 2, 10).item() == 1
    with pytest.raises(ValueError, match=r"probabilities\[0, 0\] is nan"):
        CalibrationMetric(2).update(probabilities, labels)


def test_differs_from_torchmetrics_on_an_empty_input():
    """No samples: NaN in both, but torchmetrics says nothing and here a RuntimeWarning says why."""
    nothing = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(theirs(*nothing))
    with pytest.warns(RuntimeWarning, match="ECE is NaN: there are no samples"):
        assert np.isnan(ours(*nothing))


# Disagreement: the position of the edges


@pytest.mark.parametrize(
    ("edge", "library", "value"), [(0.3, netcal_ece, 0.225), (0.3, theirs, 0.225), (0.7, netcal_ece, 0.175)]
)
def test_differs_on_an_edge_that_binary_fractions_lack(edge, library, value):
    """Ten bins, 0.3 (right) and 0.25 (wrong), or 0.7 and 0.65: the libraries 0.225 and 0.175, here 0.475.

    With edges in the bin above, 0.3 and 0.25 lie in different bins: (0.7 + 0.25) / 2 = 0.475. Both libraries compute
    the edge as 3 · 0.1 = 0.30000000000000004, above 0.3, so they find both in one bin: |1/2 - 0.275| = 0.225; netcal
    does the same at 7 · 0.1. Here the edges are k/K, rounded once, and 0.3 lies on the edge 3/10.
    """
    confidence, success = np.array([edge, edge - 0.05]), np.array([1, 0])
    assert library(confidence, success, 10) == pytest.approx(value, rel=1e-6)
    assert ours(confidence, success) == pytest.approx(0.475, rel=1e-6)
    assert ours(confidence, success, edges="right") == pytest.approx(value, rel=1e-6)  # 0.3 is the top of (0.2, 0.3]


# Disagreement: netcal


def test_differs_from_netcal_on_an_edge_in_float32():
    """Ten bins, 0.7 (right) and 0.65 (wrong) in float32: netcal 0.65, here 0.475.

    netcal counts with edges in float64, where the float32 0.69999999 lies below 0.7, and averages with edges in
    float32, where it does not: it takes the one sample of (0.6, 0.7], |0 - 0.65|, for both. Here an edge is rounded to
    the type of the confidences, so that 0.7 lies on it in every type: (0.3 + 0.65) / 2.
    """
    confidence, success = np.array([0.7, 0.65], np.float32), np.array([1, 0])
    assert netcal_ece(confidence, success, 10) == pytest.approx(0.65)
    assert ours(confidence, success) == pytest.approx(0.475)


def test_agrees_with_netcal_on_zero_and_one_up_to_its_clipping():
    """1.0 (right), 0.95 (wrong), float32, ten bins: netcal 0.47499993, here 0.475.

    netcal clips to [eps, 1 - eps], so 1.0 joins the last bin as it does here, but every certain sample is off by eps:
    1.2e-7 in float32. 0.0 joins the first bin under both rules.
    """
    confidence, success = np.array([1.0, 0.95], np.float32), np.array([1, 0])
    assert netcal_ece(confidence, success, 10) == pytest.approx(ours(confidence, success), abs=1e-7)
    assert netcal_ece(confidence, success, 10) < ours(confidence, success) - 5e-8
    zeros = np.array([0.0, 0.05], np.float32)
    assert netcal_ece(zeros, success, 10) == pytest.approx(ours(zeros, success), abs=1e-7)
    assert bin_statistics(torch.tensor([0.0]), torch.tensor([True]), 10, "left").count[0] == 1


@pytest.mark.parametrize("edges", ["right", "left"])
def test_differs_from_netcal_on_logits_and_nan(edges):
    """Values 3 (right) and -2 (wrong): netcal 2e-16, perfect; NaN (right) and 0.5 (wrong): 0.5. Here a ValueError each.

    Clipping makes 3 a confidence of one and -2 of zero, and NaN falls out of every bin without a word, unless SciPy,
    from 1.18 on, speaks up.
    """
    assert netcal_ece([3.0, -2.0], [1, 0], 10) == pytest.approx(0, abs=1e-15)
    if version.parse(scipy.__version__) < version.parse("1.18"):
        assert netcal_ece([np.nan, 0.5], [1, 0], 10) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"confidence\[0\] is 3.0"):
        ours([3.0, -2.0], [1, 0], edges=edges)
    with pytest.raises(ValueError, match=r"confidence\[0\] is nan"):
        ours([np.nan, 0.5], [1, 0], edges=edges)


def test_differs_from_netcal_on_two_classes():
    """(0.7, 0.3) of class 0 and (0.2, 0.8) of class 1: netcal and here 0.25 both, but of different things.

    With two labels netcal measures the probability of class 1 against the label, |0 - 0.3| and |1 - 0.8|. Here it is
    the confidence, as for any number of classes: |1 - 0.7| and |1 - 0.8|. With 0.75 in place of 0.7 and both of class
    1 the values differ too: netcal (0.75 + 0.2) / 2, a bin each, here |1/2 - 0.775| in the common bin (0.7, 0.8].
    """
    probabilities = torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=torch.float64)
    metric = CalibrationMetric(2, 10)
    metric.update(probabilities, torch.tensor([0, 1]))
    assert metric.compute()["ece"].item() == pytest.approx(0.25)
    assert netcal_ece(probabilities, [0, 1], 10) == pytest.approx(0.25)
    probabilities = torch.tensor([[0.75, 0.25], [0.2, 0.8]], dtype=torch.float64)
    metric.reset()
    metric.update(probabilities, torch.tensor([1, 1]))
    assert metric.compute()["ece"].item() == pytest.approx(0.275)
    assert netcal_ece(probabilities, [1, 1], 10) == pytest.approx((0.75 + 0.2) / 2)


def test_differs_from_netcal_on_a_batch_in_which_classes_are_missing():
    """Three classes, labels 0 and 1 only, confidence 0.7 and right twice: netcal RuntimeError, here 0.3.

    netcal counts the classes by the labels that occur, and takes two of them for a binary problem.
    """
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="binary classification problem"):
        netcal_ece(probabilities, [0, 1], 10)
    metric = CalibrationMetric(3, 10)
    metric.update(probabilities, torch.tensor([0, 1]))
    assert metric.compute()["ece"].item() == pytest.approx(0.3)


def test_differs_from_netcal_on_an_empty_input():
    """No samples: netcal an AssertionError, here NaN and a RuntimeWarning."""
    with pytest.raises(AssertionError, match="No samples provided"):
        netcal_ece(np.zeros(0), np.zeros(0), 10)
    with pytest.warns(RuntimeWarning, match="there are no samples"):
        assert np.isnan(ours(torch.zeros(0), torch.zeros(0)))
