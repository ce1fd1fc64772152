"""Does an uncertainty know which pixels are wrong, and which are of no class at all? Figure 4 of DUDES.

Shapes: C classes, H x W pixels.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmseg.registry import METRICS
from torch import Tensor

from uncertainty_core import PixelRanking
from uncertainty_core.functional.logit_scores import logit_confidence, logit_entropy
from uncertainty_core.intervals.segmented import ranking_row
from uncertainty_core.io.files import write_png, write_text
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.metrics.selective import REMOVED
from uncertainty_core.plots import sparsification_plot

from ..models.consensus import FIELDS
from .logits import class_logits
from .streaming import LOCAL, States, StreamingMetric, predicted_uncertainty


def _entropy(sample: Mapping[str, Any]) -> Tensor:
    logits = class_logits(sample)
    return (logit_entropy(logits.unsqueeze(0)).squeeze(0) / math.log(len(logits))).clamp_(0, 1)


def _doubt(sample: Mapping[str, Any]) -> Tensor:
    return 1 - logit_confidence(class_logits(sample).unsqueeze(0)).squeeze(0)


# "predicted" is by a head's "std", "predicted_<output>" by another of its outputs
PREDICTED = {"std": "predicted"} | {name: f"predicted_{name}" for name in list(FIELDS)[1:]}
UNCERTAINTIES = {
    **{key: partial(predicted_uncertainty, output=output) for output, key in PREDICTED.items()},
    "entropy": _entropy,
    "confidence": _doubt,
}


@METRICS.register_module()
class SparsificationMetric(StreamingMetric):
    """How well an uncertainty ranks pixels, from a histogram of fine levels.

    `mIoU` in percent, and `ause`, the area between the curve of mIoU over removed shares and the best possible one.
    Finding wrong pixels: `error_auroc`, `error_aupr`, `error_fpr95`, and `aurc`. Finding void pixels, which stand for
    what is out of domain: `auroc`, `aupr`, `fpr95`.

    Args:
        uncertainty: whose ranking: "predicted" by an uncertainty head or a teacher, "predicted_entropy" and its kin by
            another of their outputs, or what every segmentor has, the "entropy" of its softmax or its missing
            "confidence". It is the prefix of the names.
        kwargs: as `StreamingMetric`.
    """

    def __init__(self, uncertainty: str = "predicted", prefix: str | None = None, **kwargs: Any) -> None:
        if uncertainty not in UNCERTAINTIES:
            raise ValueError(f"uncertainty must be one of {', '.join(UNCERTAINTIES)}, got {uncertainty!r}")
        super().__init__(prefix=prefix or uncertainty, **kwargs)
        self.uncertainty = uncertainty

    def new_states(self) -> States:
        """See `StreamingMetric`."""
        return {"pixels": PixelRanking(self.num_classes, ignore_index=self.ignore_index, **LOCAL)}

    def add(self, states: States, sample: Mapping[str, Any], label: Tensor) -> None:
        """See `StreamingMetric`."""
        prediction = sample["pred_sem_seg"]["data"].squeeze(0).long()
        states["pixels"].update(prediction, label, UNCERTAINTIES[self.uncertainty](sample))

    def compute(self, states: States) -> dict[str, float]:
        """See `StreamingMetric`."""
        values = states["pixels"].compute()
        miou = values.pop("miou").item()
        return {"mIoU": 100 * miou} | {name: value.item() for name, value in values.items() if value.dim() == 0}

    @property
    def row_settings(self) -> dict[str, Any]:
        """See `StreamingMetric`."""
        return {"removed": REMOVED}

    def row(self, states: States) -> dict[str, Any]:
        """See `StreamingMetric`."""
        return ranking_row(states["pixels"].levels)

    def write(self, states: States, metrics: Mapping[str, float], folder: Path) -> None:
        """The curve, as JSON and as a picture."""
        state = states["pixels"]
        curves = state.compute()
        content = {"removed": list(state.removed)} | {k: curves[k].tolist() for k in ("curve", "oracle")}
        write_text(folder / f"{self.prefix}_curve.json", strict_json(content))
        figure = sparsification_plot(state.removed, {self.prefix: curves["curve"]}, {self.prefix: curves["oracle"]})
        write_png(folder / f"{self.prefix}_sparsification.png", figure)
