"""How sure is a segmentor of each class? Table 2 of DUDES.

Shapes: C classes, H x W pixels.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable
from torch import Tensor

from uncertainty_core import GroupMean, MapAgreement, TargetStore
from uncertainty_core.intervals.segmented import class_row

from ..targets.codec import read_target
from .streaming import LOCAL, States, StreamingMetric, predicted_uncertainty

MEANS = {"student": "mUnc", "teacher": "mUnc_teacher"}


@METRICS.register_module()
class UncertaintyMetric(StreamingMetric):
    """Mean predicted uncertainty of the pixels of each true class, and `mUnc`, its mean over classes; void left out.

    With the targets of a teacher also the teacher's, `mUnc_teacher`, the difference, `mUnc_difference`, and whether
    both order the pixels alike, void ones included: `rank_correlation`.

    Args:
        targets: store of the teacher's targets for these images (`tools/generate_targets.py --split val`).
        kwargs: as `StreamingMetric`.
    """

    default_prefix = "uncertainty"

    def __init__(self, targets: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._store = None if targets is None else TargetStore(targets)

    def new_states(self) -> States:
        """See `StreamingMetric`."""
        names = ["student"] if self._store is None else ["student", "teacher"]
        states: States = {name: GroupMean(self.num_classes, self.ignore_index, **LOCAL) for name in names}
        return states if self._store is None else states | {"agreement": MapAgreement(**LOCAL)}

    def add(self, states: States, sample: Mapping[str, Any], label: Tensor) -> None:
        """See `StreamingMetric`."""
        states["student"].update(predicted_uncertainty(sample), label)
        if self._store is not None:
            target = read_target(sample["img_path"], self._store)
            if target.dim() == 3:  # class by class: that of the predicted one
                target = target.gather(0, sample["pred_sem_seg"]["data"].long().cpu()).squeeze(0)
            states["teacher"].update(target.to(label.device), label)
            states["agreement"].update(predicted_uncertainty(sample), target.to(label.device))

    def compute(self, states: States) -> dict[str, float]:
        """See `StreamingMetric`."""
        means = {name: states[name].compute() for name in MEANS if name in states}
        columns = {"Class": list(self.dataset_meta["classes"])}
        columns |= {name: means[name]["per_group"].tolist() for name in means}
        values = {MEANS[name]: mean["mean"].item() for name, mean in means.items()}
        if "teacher" in means:
            difference = means["student"]["per_group"] - means["teacher"]["per_group"]
            columns["difference"] = difference.tolist()
            values |= {"mUnc_difference": values["mUnc"] - values["mUnc_teacher"]}
            values["rank_correlation"] = states["agreement"].compute()["rank_correlation"].item()
        table = PrettyTable()
        for name, column in columns.items():
            table.add_column(name, [f"{v:.4f}" if isinstance(v, float) else v for v in column])
        print_log(f"mean uncertainty per class:\n{table}", logger="current")
        return values

    def row(self, states: States) -> dict[str, Any]:
        """See `StreamingMetric`."""
        return class_row({key: states[name].sums for name, key in MEANS.items() if name in states})
