"""Calibrators of class probabilities: cases by hand, properties, and the errors of bad input."""

import math

import pytest
import torch
from references import overconfident_probabilities

from uncertainty_core.recalibration import (
    PROBABILITY_METHODS,
    ClassTemperature,
    Isotonic,
    IsotonicClasses,
    MatrixScaling,
    VectorScaling,
    fit_class_isotonic,
    fit_class_temperature,
    fit_dirichlet,
    fit_matrix,
    from_json,
)
from uncertainty_core.recalibration.probabilities import _affine_derivatives
from uncertainty_core.recalibration.solvers import RIDGE

METHODS = pytest.mark.parametrize("method", PROBABILITY_METHODS)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def nll(probabilities, labels):
    return -probabilities.gather(1, labels.unsqueeze(1)).clamp(min=2.0**-40).log().mean()


@pytest.mark.parametrize(
    ("calibrator", "probabilities", "expected"),
    [
        # square roots of 0.64, 0.32, 0.04 are to each other as 4 to 2.83 to 1; of 0.81, 0.09, 0.09 (+ 0.01) as 9:3:3:1
        (ClassTemperature(2.0), (0.81, 0.09, 0.09, 0.01), (9 / 16, 3 / 16, 3 / 16, 1 / 16)),
        # the first squared, the second twice as much: 0.25 to 1
        (VectorScaling((2.0, 1.0), (0.0, math.log(2))), (0.5, 0.5), (0.2, 0.8)),
        # exchanged
        (MatrixScaling(((0.0, 1.0), (1.0, 0.0)), (0.0, 0.0)), (0.9, 0.1), (0.1, 0.9)),
        # 0.4 and 0.4 of sum 0.8; where both are 0 nothing changes
        (IsotonicClasses((Isotonic((0.5, 1.0), (0.4, 1.0)), Isotonic((0.5, 1.0), (0.4, 1.0)))), (0.5, 0.5), (0.5, 0.5)),
        (IsotonicClasses((Isotonic((0.5,), (0.0,)),) * 2), (0.3, 0.7), (0.3, 0.7)),
    ],
)
def test_maps_by_hand(calibrator, probabilities, expected):
    given, expected = tensor(probabilities), tensor(expected)
    torch.testing.assert_close(calibrator(given), expected)
    torch.testing.assert_close(calibrator.on_logits(given.log() + 7).softmax(1), expected)
    image = given.float()[:, :, None, None].expand(1, -1, 2, 3)
    torch.testing.assert_close(calibrator(image), expected.float()[:, :, None, None].expand(1, -1, 2, 3))
    assert from_json(calibrator.to_json()) == calibrator


def test_fits_by_hand():
    # (0.9, 0.1) comes true 3 times in 4, which is what T = 2 makes of it
    probabilities, labels = tensor([0.9, 0.1]).expand(4, 2), torch.tensor([0, 0, 0, 1])
    assert fit_class_temperature(probabilities, labels).temperature == pytest.approx(2, abs=1e-6)
    for fit in (fit_matrix, PROBABILITY_METHODS["vector"], fit_class_isotonic):
        torch.testing.assert_close(
            fit(probabilities, labels)(probabilities[:1]), tensor([0.75, 0.25]), rtol=0, atol=1e-6
        )


@METHODS
def test_better_than_before_and_never_far_from_it(method):
    probabilities, labels = overconfident_probabilities()
    calibrator = PROBABILITY_METHODS[method](probabilities, labels)
    after = calibrator(probabilities)
    torch.testing.assert_close(after.sum(1), torch.ones(600, dtype=torch.float64))
    assert nll(after, labels) < nll(probabilities, labels)
    assert from_json(calibrator.to_json()) == calibrator
    assert calibrator.num_classes in (None, 3)


def test_more_freedom_fits_better():
    probabilities, labels = overconfident_probabilities()
    one, vector, dirichlet, matrix = (
        nll(PROBABILITY_METHODS[method](probabilities, labels)(probabilities), labels)
        for method in ("temperature", "vector", "dirichlet", "matrix")
    )
    assert matrix <= dirichlet < one and matrix < vector < one


def test_regularisation_pulls_to_a_diagonal_without_intercept():
    probabilities, labels = overconfident_probabilities(200)
    weak, strong = (fit_dirichlet(probabilities, labels, weight, weight) for weight in (1e-5, 10))

    def off(fitted):
        weight = torch.tensor(fitted.weight)
        return (weight - weight.diag().diag()).abs().max().item()

    assert off(strong) < off(weak) / 2
    assert max(map(abs, strong.bias)) < max(map(abs, weak.bias)) / 5


def test_both_ways_to_fit_a_matrix_agree(monkeypatch):
    probabilities, labels = overconfident_probabilities(10_000)  # enough to begin with a part of them
    newton = fit_dirichlet(probabilities, labels)
    monkeypatch.setattr("uncertainty_core.recalibration.probabilities.NEWTON_PARAMETERS", 0)
    lbfgs = fit_dirichlet(probabilities, labels)
    assert torch.tensor(newton.weight) == pytest.approx(torch.tensor(lbfgs.weight), abs=1e-5)
    assert newton.bias == pytest.approx(lbfgs.bias, abs=1e-5)


def test_derivatives_of_a_matrix_are_those_of_autograd():
    generator = torch.Generator().manual_seed(0)
    inputs, flat = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((7, 4), (12,)))
    labels, penalty = torch.arange(7) % 3, torch.rand(3, 4, generator=generator, dtype=torch.float64)
    identity = torch.eye(3, 4, dtype=torch.float64)

    def loss(flat):
        point = flat.view(3, 4)
        penalties = (penalty * point**2).sum() / 2 + RIDGE / 2 * ((point - identity) ** 2).sum()
        return torch.nn.functional.cross_entropy(inputs @ point.T, labels) + penalties

    value, gradient, hessian = _affine_derivatives(inputs, labels, penalty, identity, flat)
    torch.testing.assert_close(value, loss(flat))
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(loss, flat))
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(loss, flat))


@METHODS
def test_one_sample_and_one_class_only(method):
    fit = PROBABILITY_METHODS[method]
    calibrator = fit(tensor([0.6, 0.4]), torch.tensor([1]))
    assert calibrator(tensor([1.0, 0.0], [0.6, 0.4])).isfinite().all()
    always = fit(tensor([0.6, 0.4], [0.7, 0.3]), torch.tensor([0, 0]))
    assert (always(tensor([0.6, 0.4]))[0, 0] > 0.6).item()


@METHODS
def test_traces_on_images_of_any_size(method):
    calibrator = PROBABILITY_METHODS[method](*overconfident_probabilities())

    class Module(torch.nn.Module):
        def forward(self, logits):
            return calibrator.on_logits(logits)

    traced = torch.jit.trace(Module(), torch.randn(2, 3, 4, 5), check_trace=False)
    logits = torch.randn(3, 3, 6, 7)
    torch.testing.assert_close(traced(logits), calibrator.on_logits(logits))


@METHODS
@pytest.mark.parametrize(
    ("probabilities", "labels", "sentence"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "probabilities is empty: there are no samples"),
        (torch.tensor([[0.2, 0.3]]), torch.tensor([0]), "must sum to 1"),
        (torch.tensor([[math.nan, 0.3]]), torch.tensor([0]), r"probabilities\[0, 0\] is nan"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([2]), r"labels must lie in \[0, 2\)"),
        (torch.full((1, 2, 1, 1), 0.5), torch.zeros(1, 1, 1, dtype=torch.int64), r"must have shape \(N, C\)"),
    ],
)
def test_bad_samples(method, probabilities, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        PROBABILITY_METHODS[method](probabilities, labels)


def test_other_classes_and_logits_for_probabilities():
    calibrator = PROBABILITY_METHODS["vector"](*overconfident_probabilities())
    with pytest.raises(ValueError, match="was fitted for 3 classes, and the input has 4"):
        calibrator(torch.full((2, 4), 0.25))
    with pytest.raises(ValueError, match="was fitted for 3 classes, and the input has 4"):
        calibrator.on_logits(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="are these logits"):
        calibrator(torch.zeros(2, 3))
