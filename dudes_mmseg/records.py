"""What an evaluation found out about a segmentor, in the record that all packages share.

Shapes: C classes.
"""

from collections.abc import Mapping, Sequence

import mmseg
from mmengine.evaluator import BaseMetric
from torch import Tensor

from uncertainty_core.run_record import (
    Curve,
    Data,
    PaperRow,
    Picture,
    Provenance,
    Reliability,
    RunRecord,
    risk_coverage_curve,
)

from .metrics import SegCalibrationMetric, SparsificationMetric, UncertaintyMetric
from .metrics.sparsification import errors_of


def run_record(
    name: str,
    passes: int,
    evaluators: Sequence[BaseMetric],
    values: Mapping[str, float],
    seed: int | None,
    data: Data,
    seconds: float,
    pictures: Sequence[Picture] = (),
    paper_row: PaperRow | None = None,
) -> RunRecord:
    """The record of one segmentor.

    The ranking of its own uncertainty goes by the plain names; that of the softmax's entropy ends in "_entropy", unless
    there is no other.

    Args:
        name: of the predictor.
        passes: of the network for one image.
        evaluators: the metrics, when they have measured.
        values: what they returned, by name with prefix.
        seed: of the training.
        data: what was predicted.
        seconds: that the evaluation took.
        pictures: in the folder of the record.
        paper_row: what a paper prints of the same predictor.
    """
    rankings = {m.uncertainty: m for m in evaluators if isinstance(m, SparsificationMetric)}
    main = "predicted" if "predicted" in rankings else next(iter(rankings), None)
    metrics = {}
    for key, value in values.items():
        prefix, _, short = key.rpartition("/")
        if prefix in rankings and prefix != main:
            if short != "mIoU":
                metrics[f"{short}_{prefix}"] = value
        else:
            metrics.setdefault(short, value)
    reliability, curves, per_class = None, {}, {}
    for metric in evaluators:
        if isinstance(metric, SegCalibrationMetric):
            reliability = Reliability.of(metric.measured["calibration"].result())
        elif isinstance(metric, UncertaintyMetric):
            means = metric.measured["student"].compute()["per_group"]
            per_class["uncertainty"] = dict(zip(metric.dataset_meta["classes"], means.tolist(), strict=True))
        elif isinstance(metric, SparsificationMetric) and metric.uncertainty == main:
            state = metric.measured["sparsification"]
            values_of = state.compute()
            curve, oracle = values_of["curve"].tolist(), values_of["oracle"].tolist()
            curves["sparsification"] = Curve(list(state.removed), curve, oracle)
            curves["risk_coverage"] = risk_coverage_curve(errors_of(state.confusions))
            ious = 100 * class_iou(state.confusions.sum(0))
            per_class["IoU"] = dict(zip(metric.dataset_meta["classes"], ious.tolist(), strict=True))
    provenance = Provenance.of_this_process(seed, data, seconds, mmsegmentation=mmseg.__version__)
    return RunRecord(
        name, "segmentation", passes, metrics, provenance, reliability, curves, per_class, list(pictures), paper_row
    )


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union (C,) of each class, NaN where it never occurs; `confusion` (C, C)."""
    confusion = confusion.double()
    intersection = confusion.diagonal()
    return intersection / (confusion.sum(0) + confusion.sum(1) - intersection)
