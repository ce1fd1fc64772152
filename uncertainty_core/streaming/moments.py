"""Mean and standard deviation of a stream of tensors, in memory that does not grow with its length."""

import torch
from torch import Tensor

from .dtypes import at_least_float32


class RunningMoments:
    """Elementwise mean and deviation of equally shaped tensors (...), fed one at a time (Welford's recurrence)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None  # sum of squared deviations from the mean so far

    def update(self, values: Tensor) -> None:
        """Add one tensor (...); half precision is summed in float32."""
        values = at_least_float32(values.detach())
        if self._mean is not None and values.shape != self._mean.shape:
            raise ValueError(f"values must have shape {tuple(self._mean.shape)} as before, got {tuple(values.shape)}")
        self.count += 1
        if self._mean is None:
            self._mean, self._squares = values.clone(), torch.zeros_like(values)
            return
        deviation = values - self._mean
        self._mean.add_(deviation, alpha=1 / self.count)
        self._squares.addcmul_(deviation, deviation, value=(self.count - 1) / self.count)

    @property
    def mean(self) -> Tensor:
        """Mean (...)."""
        if self._mean is None:
            raise ValueError("there is no mean of nothing: update was never called")
        return self._mean.clone()

    def std(self, ddof: int = 0, classes: Tensor | None = None) -> Tensor:
        """Standard deviation (...); the sum of squares is divided by count - ddof.

        Args:
            ddof: 1 for the deviation of a sample, 0 for that of a population.
            classes: of (N, C, ...) only these entries (N, 1, ...) of dimension 1, int64.
        """
        if self._squares is None or self.count <= ddof:
            raise ValueError(f"a standard deviation with ddof={ddof} needs more than {ddof} samples, got {self.count}")
        squares = self._squares if classes is None else self._squares.gather(1, classes)
        return (squares / (self.count - ddof)).sqrt_()
