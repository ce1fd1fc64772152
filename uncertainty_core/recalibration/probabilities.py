"""Calibrators of class probabilities: distributions over classes in, distributions out.

All but the isotonic one are affine in log probabilities, which are the logits but for a number that softmax drops:
softmax(W log p + b). So they take the mean of several networks, too, which has no logits.

Shapes: N samples, C classes, `...` any further dimensions (pixels).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import check_distribution
from ..functional.scores import check_predictions
from ..streaming.dtypes import at_least_float32
from .base import PROBABILITIES, Calibrator, CalibratorError, is_traced, register
from .recipes import CLASS_METHODS
from .segments import Isotonic, fit_isotonic
from .solvers import RIDGE, bounded_newton, minimize

# Probabilities count as this at the least: what lies below is a matter of the precision of a softmax.
LEAST = 2.0**-40
# Weights of the mean squared off-diagonal entry and of the mean squared intercept in Dirichlet calibration.
OFF_DIAGONAL = INTERCEPT = 1e-3
# Matrices of more entries are fitted without second derivatives (31 classes have 992).
NEWTON_PARAMETERS = 1000
_CHUNK = 1 << 14


@dataclass(frozen=True)
class ProbabilityCalibrator(Calibrator):
    """Calling it maps `probabilities` (N, C, ...) to the same shape and dtype."""

    task = PROBABILITIES

    def __call__(self, probabilities: Tensor) -> Tensor:
        """The calibrated probabilities."""
        self._check(probabilities)
        values = at_least_float32(probabilities)
        return self.of_log(values.clamp(min=LEAST).log()).softmax(1).to(probabilities.dtype)

    def on_logits(self, logits: Tensor) -> Tensor:
        """Calibrated logits (N, C, ...), whose softmax is the calibrated one of the softmax of `logits`."""
        self._check_classes(logits)
        values = at_least_float32(logits).log_softmax(1).clamp(min=math.log(LEAST))
        return self.of_log(values).to(logits.dtype)

    def of_log(self, log_probabilities: Tensor) -> Tensor:
        """Calibrated logits (N, C, ...) from log probabilities, unchecked."""
        raise NotImplementedError

    def _check(self, probabilities: Tensor) -> None:
        if not is_traced():
            check_distribution("probabilities", probabilities)
        self._check_classes(probabilities)

    def _check_classes(self, values: Tensor) -> None:
        if not is_traced() and self.num_classes not in (None, values.shape[1]):
            raise ValueError(
                f"the calibrator was fitted for {self.num_classes} classes, and the input has {values.shape[1]}"
            )


@register
@dataclass(frozen=True)
class ClassTemperature(ProbabilityCalibrator):
    """softmax(log p / T): temperature scaling (Guo et al. 2017)."""

    kind: ClassVar[str] = "temperature"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise CalibratorError(f"temperature must be positive, got {self.temperature}")

    def of_log(self, log_probabilities: Tensor) -> Tensor:
        """Calibrated logits."""
        return log_probabilities / self.temperature


@register
@dataclass(frozen=True)
class VectorScaling(ProbabilityCalibrator):
    """softmax(scale · log p + bias), one number of each for each class (Guo et al. 2017)."""

    kind: ClassVar[str] = "vector"
    scale: tuple[float, ...]
    bias: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.scale or len(self.scale) != len(self.bias):
            raise CalibratorError(
                f"vector scaling needs as many scales as biases, got {len(self.scale)}, {len(self.bias)}"
            )

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.scale)

    def of_log(self, log_probabilities: Tensor) -> Tensor:
        """Calibrated logits."""
        shape = (-1, *(1,) * (log_probabilities.dim() - 2))
        scale, bias = (log_probabilities.new_tensor(values).view(shape) for values in (self.scale, self.bias))
        return scale * log_probabilities + bias


@register
@dataclass(frozen=True)
class MatrixScaling(ProbabilityCalibrator):
    """softmax(weight · log p + bias): matrix scaling, and with a regularised fit Dirichlet calibration."""

    kind: ClassVar[str] = "matrix"
    weight: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.bias or {len(row) for row in (self.weight, *self.weight)} != {len(self.bias)}:
            raise CalibratorError(f"matrix scaling of {len(self.bias)} classes needs as many rows and columns")

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.bias)

    def of_log(self, log_probabilities: Tensor) -> Tensor:
        """Calibrated logits."""
        weight, bias = (log_probabilities.new_tensor(values) for values in (self.weight, self.bias))
        return torch.einsum("dc,nc...->nd...", weight, log_probabilities) + bias.view(
            -1, *(1,) * (log_probabilities.dim() - 2)
        )


@register
@dataclass(frozen=True)
class IsotonicClasses(ProbabilityCalibrator):
    """Each class through a rising function of its own, then divided by their sum (Zadrozny and Elkan 2002).

    Where all become 0, the probabilities stay as they were.
    """

    kind: ClassVar[str] = "isotonic"
    maps: tuple[Isotonic, ...]

    def __post_init__(self) -> None:
        if not self.maps or not all(isinstance(single, Isotonic) for single in self.maps):
            raise CalibratorError("isotonic calibration of classes needs an isotonic map of each")

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.maps)

    def __call__(self, probabilities: Tensor) -> Tensor:
        """The calibrated probabilities."""
        self._check(probabilities)
        parts = [single(values.clamp(0, 1)) for single, values in zip(self.maps, probabilities.unbind(1), strict=True)]
        mapped = torch.stack(parts, 1)
        total = mapped.sum(1, keepdim=True)
        return torch.where(total > 0, mapped / total.clamp(min=torch.finfo(total.dtype).tiny), probabilities)

    def on_logits(self, logits: Tensor) -> Tensor:
        """Calibrated logits; those of a probability of 0 are that of LEAST."""
        return self.of_log(at_least_float32(logits).log_softmax(1)).to(logits.dtype)

    def of_log(self, log_probabilities: Tensor) -> Tensor:
        """Calibrated logits."""
        return self(log_probabilities.exp()).clamp(min=LEAST).log()


def _check_fit(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities (N, C) in float64 and int64 labels (N,), on the processor."""
    if probabilities.dim() != 2:
        raise ValueError(f"probabilities must have shape (N, C), got {tuple(probabilities.shape)}; see PixelSample")
    check_predictions(probabilities, labels)
    if not len(labels):
        raise ValueError("probabilities is empty: there are no samples to fit a calibrator to")
    return probabilities.detach().double().cpu().clamp(min=LEAST).log(), labels.long().cpu()


def fit_class_temperature(probabilities: Tensor, labels: Tensor) -> ClassTemperature:
    """The temperature with the least negative log-likelihood.

    Args:
        probabilities: (N, C).
        labels: true classes (N,), integer.
    """
    logs, labels = _check_fit(probabilities, labels)
    true = logs.gather(1, labels.unsqueeze(1)).squeeze(1)

    def derivatives(slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled = slope * logs
        probability = scaled.softmax(1)
        mean = (probability * logs).sum(1)
        variance = (probability * logs.square()).sum(1) - mean.square()
        loss = (scaled.logsumexp(1) - slope * true).mean() + RIDGE / 2 * (slope - 1).square().sum()
        return loss, (mean - true).mean() + RIDGE * (slope - 1), (variance.mean() + RIDGE).view(1, 1)

    one = torch.ones(1, dtype=torch.float64)
    return ClassTemperature(1 / bounded_newton(derivatives, one, 1e-3 * one).item())


def fit_vector(probabilities: Tensor, labels: Tensor) -> VectorScaling:
    """Scales and biases with the least negative log-likelihood. Arguments as `fit_class_temperature`."""
    logs, labels = _check_fit(probabilities, labels)
    num_samples, num_classes = logs.shape
    identity = torch.cat((torch.ones(num_classes), torch.zeros(num_classes))).double()
    labelled = torch.nn.functional.one_hot(labels, num_classes)
    sums = torch.cat(((labelled * logs).sum(0), labelled.sum(0)))  # what the gradient is less of

    def derivatives(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale, bias = point.split(num_classes)
        scores = scale * logs + bias
        probability = scores.softmax(1)
        weighted = probability * logs
        both = torch.cat((weighted, probability), 1)
        of_scale, of_both, of_bias = ((weighted * logs).sum(0), weighted.sum(0), probability.sum(0))
        blocks = [[of_scale.diag(), of_both.diag()], [of_both.diag(), of_bias.diag()]]
        hessian = torch.cat([torch.cat(row, 1) for row in blocks]) - both.T @ both
        away = point - identity
        loss = torch.nn.functional.cross_entropy(scores, labels) + RIDGE / 2 * away.square().sum()
        gradient = (both.sum(0) - sums) / num_samples + RIDGE * away
        return loss, gradient, hessian / num_samples + RIDGE * torch.eye(2 * num_classes, dtype=torch.float64)

    scale, bias = bounded_newton(derivatives, identity, torch.full_like(identity, -math.inf)).split(num_classes)
    return VectorScaling(tuple(scale.tolist()), tuple(bias.tolist()))


def fit_matrix(probabilities: Tensor, labels: Tensor) -> MatrixScaling:
    """Matrix and biases with the least negative log-likelihood. Arguments as `fit_class_temperature`."""
    return fit_dirichlet(probabilities, labels, 0, 0)


def fit_dirichlet(
    probabilities: Tensor, labels: Tensor, off_diagonal: float = OFF_DIAGONAL, intercept: float = INTERCEPT
) -> MatrixScaling:
    """Dirichlet calibration with off-diagonal and intercept regularisation (ODIR, Kull et al. 2019).

    Args:
        probabilities: (N, C).
        labels: true classes (N,), integer.
        off_diagonal: weight of the mean squared entry off the diagonal.
        intercept: weight of the mean squared bias.
    """
    logs, labels = _check_fit(probabilities, labels)
    num_samples, num_classes = logs.shape
    inputs = torch.cat((logs, logs.new_ones(num_samples, 1)), 1)
    identity = torch.eye(num_classes, num_classes + 1, dtype=torch.float64)
    penalty = 2 * off_diagonal / max(num_classes * (num_classes - 1), 1) * (1 - identity)
    penalty[:, -1] = 2 * intercept / num_classes
    fit = _fit_affine_directly if identity.numel() <= NEWTON_PARAMETERS else _fit_affine_stepwise
    point = fit(inputs, labels, penalty, identity)
    return MatrixScaling(tuple(map(tuple, point[:, :-1].tolist())), tuple(point[:, -1].tolist()))


def _fit_affine_directly(inputs: Tensor, labels: Tensor, penalty: Tensor, identity: Tensor) -> Tensor:
    """The matrix (C, F) with the least penalised loss: Newton's method, begun on a part of the samples.

    Args:
        inputs: log probabilities of C classes, and 1 (N, F), F = C + 1.
        labels: true classes (N,).
        penalty: what each squared entry costs, twice (C, F).
        identity: where the calibrator changes nothing (C, F).
    """
    point, unbounded = identity.flatten(), torch.full((identity.numel(),), -math.inf, dtype=torch.float64)
    for every in (64, 8, 1):
        some, of_some = inputs[::every], labels[::every]
        enough = len(some) >= 100 * len(point) and len(of_some.unique()) == len(labels.unique())
        if enough or every == 1:
            point = bounded_newton(partial(_affine_derivatives, some, of_some, penalty, identity), point, unbounded)
    return point.view_as(identity)


def _affine_derivatives(
    inputs: Tensor, labels: Tensor, penalty: Tensor, identity: Tensor, flat: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient (P,) and Hessian (P, P) at a matrix `flat` (P,), P = C · F."""
    point, (num_classes, num_inputs) = flat.view_as(identity), identity.shape
    loss, gradient = flat.new_zeros(()), torch.zeros_like(identity)
    blocks, outer = flat.new_zeros(num_classes, num_inputs, num_inputs), flat.new_zeros(len(flat), len(flat))
    for part, of_part in zip(inputs.split(_CHUNK), labels.split(_CHUNK), strict=True):
        logs = (part @ point.T).log_softmax(1)
        weighted = (logs.exp().unsqueeze(2) * part.unsqueeze(1)).flatten(1)
        blocks += (weighted.T @ part).view_as(blocks)
        outer.addmm_(weighted.T, weighted)
        loss += torch.nn.functional.nll_loss(logs, of_part, reduction="sum")
        gradient += (logs.exp() - torch.nn.functional.one_hot(of_part, num_classes)).T @ part
    away = point - identity
    value = loss / len(inputs) + (penalty * point.square() + RIDGE * away.square()).sum() / 2
    slope = gradient / len(inputs) + penalty * point + RIDGE * away
    curvature = (torch.block_diag(*blocks) - outer) / len(inputs) + (penalty + RIDGE).flatten().diag()
    return value, slope.flatten(), curvature


def _fit_affine_stepwise(inputs: Tensor, labels: Tensor, penalty: Tensor, identity: Tensor) -> Tensor:
    """As `_fit_affine_directly`, without second derivatives, which are too large for many classes."""
    evened = _evened(inputs, penalty.max().item() + RIDGE)

    def at(steps: Tensor) -> Tensor:
        return identity + evened(steps.view_as(identity))

    def loss(steps: Tensor) -> Tensor:
        point = at(steps)
        penalties = (penalty * point.square() + RIDGE * (point - identity).square()).sum() / 2
        return torch.nn.functional.cross_entropy(inputs @ point.T, labels) + penalties

    return at(minimize(loss, torch.zeros_like(identity).flatten()))


def _evened(inputs: Tensor, penalty: float) -> Callable[[Tensor], Tensor]:
    """Maps steps (C, F) to those of the matrix in whose place the loss curves about alike in all directions.

    Log probabilities rise and fall together, some classes are rare, and softmax drops what all have in common. A
    minimiser that has to find this out takes twenty times as long; Kronecker factors of the curvature know it.

    Args:
        inputs: log probabilities of C classes, and 1 (N, F), F = C + 1.
        penalty: what it adds to the curvature.
    """
    probability = inputs[:, :-1].exp()
    doubt = 1 - probability.square().sum(1, keepdim=True)
    of_classes = probability.mean(0).diag() - probability.T @ probability / len(inputs)
    of_inputs = (doubt * inputs).T @ inputs / doubt.sum()
    (rows, row_axes), (columns, column_axes) = (torch.linalg.eigh(part) for part in (of_classes, of_inputs))
    curvature = rows.clamp(min=0).unsqueeze(1) * columns.clamp(min=0) + penalty
    return lambda steps: row_axes @ (steps / curvature.sqrt()) @ column_axes.T


def fit_class_isotonic(probabilities: Tensor, labels: Tensor) -> IsotonicClasses:
    """Of each class the rising function nearest to "the label is it". Arguments as `fit_class_temperature`."""
    _check_fit(probabilities, labels)
    classes = enumerate(probabilities.double().clamp(0, 1).unbind(1))
    return IsotonicClasses(tuple(fit_isotonic(values, labels == c) for c, values in classes))


_FITS = (fit_class_temperature, fit_vector, fit_matrix, fit_dirichlet, fit_class_isotonic)
PROBABILITY_METHODS: dict[str, Callable[[Tensor, Tensor], ProbabilityCalibrator]] = dict(
    zip(CLASS_METHODS, _FITS, strict=True)
)
