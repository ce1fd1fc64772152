"""What is kept of each classified image, and every metric of any number of draws from them.

Shapes: I images, R resamples, L distinct confidences, F fine bins.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..checks import Edges
from ..functional.calibration import bin_index, fine_bins
from ..functional.selective import Ranking, aurc, detection_areas
from .arrays import Layout, check_arrays, check_count, check_within
from .bins import drawn_bin_metrics
from .cells import CellSums, drawn_sum
from .resampling import NUM_RESAMPLES, Measure

_LAYOUTS = {
    "confidence": Layout("floats", "I"),
    "success": Layout("true or false", "I"),
    "scores": Layout("floats", "I"),
}


@dataclass(frozen=True, eq=False)
class ClassifiedImages:
    """ids: of the images (I).
    confidence: (I,); success: whether the predicted class is right (I,), bool.
    scores: what is averaged over images, by the name of its mean (I,).
    num_bins, edges: of the confidence.
    """

    ids: list[str]
    confidence: np.ndarray
    success: np.ndarray
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    num_bins: int = 15
    edges: Edges = "right"

    def __post_init__(self) -> None:
        check_arrays(self, _LAYOUTS, I=len(self.ids))
        check_within(self, 0, 1, "confidence")
        check_count(self, "num_bins")

    @property
    def measures(self) -> dict[Measure, int]:
        """What gives metrics of drawn images, and of how many resamples."""
        return {self.metrics: NUM_RESAMPLES}

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Every metric (R,) by name of the images drawn `weights` (I, R) times."""
        total = weights.double().sum(0)
        accuracy = drawn_sum(torch.from_numpy(self.success), weights) / total
        values = {"accuracy": accuracy, "risk": 1 - accuracy}
        values |= {name: drawn_sum(torch.from_numpy(score), weights) / total for name, score in self.scores.items()}
        values |= drawn_bin_metrics(self._bins, weights, self.num_bins)
        errors = Ranking(self._levels.drawn(weights), self._levels.drawn(weights, "wrong"))
        return values | {"aurc": aurc(errors), **detection_areas(errors, "error_")}

    @cached_property
    def _bins(self) -> CellSums:
        confidence = torch.from_numpy(self.confidence)
        cells = fine_bins(self.num_bins)
        excess = torch.from_numpy(self.success).double() - confidence.double()
        return CellSums(torch.arange(len(excess)), bin_index(confidence, cells, self.edges), cells, excess=excess)

    @cached_property
    def _levels(self) -> CellSums:
        uncertainty = 1 - torch.from_numpy(self.confidence)  # rounded as where it is measured, for the same ties
        distinct, level = uncertainty.unique(return_inverse=True)
        wrong = ~torch.from_numpy(self.success)
        return CellSums(torch.arange(len(level)), level, len(distinct), wrong=wrong)
