"""The same maps as netcal, scikit-learn and SciPy fit to the same samples."""

import numpy as np
import pytest
import torch
from references import overconfident_probabilities
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression

from uncertainty_core.recalibration import PROBABILITY_METHODS, fit_named

RANDOM = np.random.RandomState(0)
TRUE = RANDOM.uniform(0.02, 0.98, 2000)
HIT = (RANDOM.uniform(size=2000) < TRUE).astype(float)
IOU = np.clip(TRUE + RANDOM.normal(0, 0.2, 2000), 0, 1)
SCORE = expit(1.8 * logit(TRUE) + 0.4)
GRID = np.linspace(0.001, 0.999, 499)


def difference(method, theirs, target, score=SCORE):
    ours = fit_named(method)(torch.from_numpy(score), torch.from_numpy(target))
    return np.abs(ours(torch.from_numpy(GRID)).numpy() - theirs).max()


@pytest.mark.parametrize("score", [SCORE, SCORE.round(2)], ids=["distinct", "ties"])
@pytest.mark.parametrize("target", [HIT, IOU], ids=["hit", "iou"])
def test_isotonic_is_that_of_scikit_learn(score, target):
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, target).predict(GRID)
    assert difference("isotonic", theirs, target, score) < 1e-14


def test_linear_is_that_of_scikit_learn():
    theirs = LinearRegression(positive=True).fit(SCORE[:, None], IOU).predict(GRID[:, None])
    assert difference("linear", theirs.clip(0, 1), IOU) < 1e-14


def test_platt_is_logistic_regression():
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(logit(SCORE)[:, None], HIT)
    assert difference("platt", model.predict_proba(logit(GRID)[:, None])[:, 1], HIT) < 1e-7


@pytest.mark.parametrize("target", [HIT, IOU], ids=["hit", "iou"])
@pytest.mark.parametrize("method", ["temperature", "beta"])
def test_log_odds_are_those_of_scipy(method, target):
    def features(score):
        logs = np.stack((np.log(score), -np.log1p(-score), np.ones(len(score))), 1)
        return logs if method == "beta" else logs[:, :2].sum(1, keepdims=True)

    def loss(weights):
        z = features(SCORE) @ weights
        return np.mean(np.logaddexp(0, z) - target * z), features(SCORE).T @ (expit(z) - target) / len(z)

    start = np.ones(features(SCORE).shape[1])
    bounds = [(0, None), (0, None), (None, None)][: len(start)]
    options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 10_000}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    assert difference(method, expit(features(GRID) @ found.x), target) < 1e-7


@pytest.mark.filterwarnings("ignore")
def test_netcal_fits_the_same():
    from netcal.binning import HistogramBinning
    from netcal.scaling import BetaCalibration, LogisticCalibration, TemperatureScaling

    theirs = {
        "histogram": (HistogramBinning(15), 1e-15),
        "temperature": (TemperatureScaling(), 1e-4),  # these stop early
        "platt": (LogisticCalibration(), 1e-4),
        "beta": (BetaCalibration(), 1e-4),
    }
    for method, (model, tolerance) in theirs.items():
        assert difference(method, model.fit(SCORE, HIT).transform(GRID).ravel(), HIT) < tolerance, method


@pytest.mark.parametrize(("method", "weight"), [("vector", 0), ("matrix", 0), ("dirichlet", 1e-3)])
def test_scaling_of_probabilities_is_that_of_scipy(method, weight):
    probabilities, labels = overconfident_probabilities()
    logs, eye = probabilities.log().numpy(), np.eye(3)
    free = eye.astype(bool) if method == "vector" else np.ones((3, 3), bool)

    def logits(point):
        matrix = np.zeros((3, 3))
        matrix[free] = point[:-3]
        return logs @ matrix.T + point[-3:], matrix

    def loss(point):
        z, matrix = logits(point)
        of_true = log_softmax(z, 1)[np.arange(len(z)), labels.numpy()]
        return -of_true.mean() + weight * (matrix[~eye.astype(bool)] ** 2).mean() + weight * (point[-3:] ** 2).mean()

    start = np.concatenate((eye[free], np.zeros(3)))
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-8})
    ours = PROBABILITY_METHODS[method](probabilities, labels)(probabilities)
    assert ours.numpy() == pytest.approx(softmax(logits(found.x)[0], 1), rel=0, abs=1e-4)


def test_isotonic_classes_are_those_of_scikit_learn():
    probabilities, labels = overconfident_probabilities()
    columns = [
        IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, labels == c).predict(p)
        for c, p in enumerate(probabilities.numpy().T)
    ]
    expected = np.stack(columns, 1) / np.sum(columns, 0)[:, None]
    ours = PROBABILITY_METHODS["isotonic"](probabilities, labels)(probabilities)
    assert ours.numpy() == pytest.approx(expected, rel=0, abs=1e-14)
