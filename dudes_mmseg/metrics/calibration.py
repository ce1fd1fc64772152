"""Are a segmentor's probabilities right? Over every pixel, none sampled.

Shapes: C classes, H x W pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmseg.registry import METRICS
from torch import Tensor

from uncertainty_core import CalibrationMetric
from uncertainty_core.intervals.segmented import calibration_row
from uncertainty_core.io.files import write_png, write_text
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.plots import reliability_diagram

from .logits import class_logits
from .streaming import LOCAL, States, StreamingMetric

BINS = ("count", "mean_confidence", "success_frequency")
SCORES = ("nll_true", "brier")


@METRICS.register_module()
class SegCalibrationMetric(StreamingMetric):
    """`ece`, `msce` and all others of bins, `nll_true` and `brier` of the softmax, in plain values; void left out.

    Args:
        num_bins: of confidence.
        kwargs: as `StreamingMetric`.
    """

    default_prefix = "calibration"

    def __init__(self, num_bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_bins = num_bins

    def new_states(self) -> States:
        """See `StreamingMetric`."""
        metric = CalibrationMetric(
            self.num_classes, self.num_bins, ignore_index=self.ignore_index, scores=SCORES, **LOCAL
        )
        return {"calibration": metric}

    def add(self, states: States, sample: Mapping[str, Any], label: Tensor) -> None:
        """See `StreamingMetric`."""
        logits, predicted = class_logits(sample), sample["pred_sem_seg"]["data"]
        states["calibration"].update_logits(logits.unsqueeze(0), label.unsqueeze(0), predicted)

    def compute(self, states: States) -> dict[str, float]:
        """See `StreamingMetric`."""
        return {name: value.item() for name, value in states["calibration"].compute().items()}

    @property
    def row_settings(self) -> dict[str, Any]:
        """See `StreamingMetric`."""
        return {"num_bins": self.num_bins}

    def row(self, states: States) -> dict[str, Any]:
        """See `StreamingMetric`."""
        return calibration_row(states["calibration"].bin_sums, states["calibration"].score_sums, SCORES)

    def write(self, states: States, metrics: Mapping[str, float], folder: Path) -> None:
        """Every bin, and the reliability diagram."""
        result = states["calibration"].result()
        columns = {name: getattr(result.bins, name).tolist() for name in BINS}
        write_text(folder / f"{self.prefix}_bins.json", strict_json(columns))
        write_png(folder / f"{self.prefix}_reliability.png", reliability_diagram(result))
