"""Minimisers in float64 that give the same result every time.

Shapes: P parameters.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Added to each mean loss, times the squared distance from the identity: it moves no result that data decide, and where
# they decide nothing (all hits, one score) the minimum is finite, and the one nearest to the identity.
RIDGE = 1e-9

_NEGLIGIBLE = 1e-13
_HALVINGS = 30

# The value, gradient (P,) and Hessian (P, P) at a point.
Derivatives = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def bounded_newton(derivatives: Derivatives, start: Tensor, lower: Tensor, max_iterations: int = 200) -> Tensor:
    """The minimum (P,) of a strictly convex function where no parameter is below `lower` (P,).

    Damped Newton steps in the parameters that no bound holds, halved until the value falls (Bertsekas 1982).
    """
    point = torch.maximum(start, lower)
    value, gradient, hessian = derivatives(point)
    for _ in range(max_iterations):
        free = (point > lower) | (gradient < 0)
        step = torch.zeros_like(point)
        slope = gradient[free]
        # by the squared gradient: bounds steps where the function is all but straight, and vanishes towards the end
        damped = hessian[free][:, free] + (slope @ slope) * torch.eye(len(slope), dtype=slope.dtype)
        step[free] = -torch.linalg.solve(damped, slope)
        if -(gradient @ step) < _NEGLIGIBLE:  # what this step gains; it squares the distance that is left
            return torch.maximum(point + step, lower)
        for _ in range(_HALVINGS):
            candidate = torch.maximum(point + step, lower)
            candidate_value, *candidate_derivatives = derivatives(candidate)
            if candidate_value < value:
                break
            step = step / 2
        else:
            return point  # rounding errors decide from here on
        point, value, (gradient, hessian) = candidate, candidate_value, candidate_derivatives
    return point


def minimize(loss: Callable[[Tensor], Tensor], start: Tensor, max_iterations: int = 1000) -> Tensor:
    """The minimum (P,) of a smooth convex `loss`, for many parameters: L-BFGS."""
    point = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point],
        max_iter=max_iterations,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(point)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return point.detach()
