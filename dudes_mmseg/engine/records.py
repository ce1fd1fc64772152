"""What an evaluation found out about a segmentor, in the record that all packages share.

Shapes: C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import mmseg
from mmengine.evaluator import BaseMetric
from torch import Tensor

from uncertainty_core.catalog import SEGMENTATION
from uncertainty_core.intervals.segmented import SegmentedImages
from uncertainty_core.report.run_record import (
    Curve,
    Data,
    PaperRow,
    Picture,
    Provenance,
    Reliability,
    RunRecord,
    Training,
    risk_coverage_curve,
)
from uncertainty_core.roles import output_name, ranked_name

from ..metrics import SegCalibrationMetric, SparsificationMetric, UncertaintyMetric
from ..metrics.streaming import StreamingMetric


@dataclass(frozen=True)
class Evaluation:
    """A segmentor's evaluation.

    name: of the predictor.
    passes: of the network for one image.
    evaluators: the metrics, when they have measured.
    values: what they returned, by name with prefix.
    seed: of the training.
    data: what was predicted.
    seconds: that it took.
    training: what made its weights, if that is known.
    """

    name: str
    passes: int
    evaluators: Sequence[BaseMetric]
    values: Mapping[str, float]
    seed: int | None
    data: Data
    seconds: float
    training: Training | None = None


def run_records(
    evaluation: Evaluation, pictures: Sequence[Picture] = (), paper_row: PaperRow | None = None
) -> Iterator[tuple[RunRecord, SegmentedImages]]:
    """A record for each of the uncertainties that were measured, and what is kept of its images.

    The first is the one that the predictor stands for.

    Args:
        evaluation: of the predictor.
        pictures: in the folder of the first record.
        paper_row: what a paper prints of the same predictor.
    """
    rankings = {m.uncertainty: m for m in evaluation.evaluators if isinstance(m, SparsificationMetric)}
    provenance = Provenance.of_this_process(
        evaluation.seed, evaluation.data, evaluation.seconds, mmsegmentation=mmseg.__version__
    )

    def record(name: str, uncertainty: str | None, others: bool, **more) -> RunRecord:
        metrics = {}
        for key, value in evaluation.values.items():
            prefix, _, short = key.rpartition("/")
            if prefix == uncertainty or (others and prefix not in rankings):
                metrics.setdefault(short, value)
        curves, per_class = {}, {}
        if uncertainty is not None:
            curves, per_class = _of_ranking(rankings[uncertainty])
        per_class = per_class | more.pop("per_class") if others else {}
        return RunRecord(
            name,
            SEGMENTATION,
            evaluation.passes,
            metrics,
            provenance,
            curves=curves,
            per_class=per_class,
            training=evaluation.training,
            **more,
        )

    main = "predicted" if "predicted" in rankings else next(iter(rankings), None)
    first = record(
        evaluation.name,
        main,
        others=True,
        reliability=_reliability(evaluation),
        per_class=_uncertainty_per_class(evaluation),
        pictures=list(pictures),
        paper_row=paper_row,
    )
    others = [m for m in evaluation.evaluators if isinstance(m, SegCalibrationMetric | UncertaintyMetric)]
    yield first, _images([*others, *([] if main is None else [rankings[main]])])
    for uncertainty, metric in rankings.items():
        if uncertainty != main:
            name = _name(evaluation.name, uncertainty)
            yield record(name, uncertainty, others=False), _images([metric])


def _name(predictor: str, uncertainty: str) -> str:
    """Of a predictor that is judged by one of `UNCERTAINTIES`."""
    output = uncertainty.removeprefix("predicted_")
    return ranked_name(predictor, output) if output == uncertainty else output_name(predictor, output)


def _images(metrics: Sequence[StreamingMetric]) -> SegmentedImages:
    """What these keep of the images that all of them have seen."""
    rows: dict[str, dict] = {}
    settings: dict = {}
    for metric in metrics:
        settings |= metric.row_settings
        for name, row in metric.rows.items():
            rows.setdefault(name, {}).update(row)
    return SegmentedImages.of_rows(list(rows), list(rows.values()), **settings)


def _of_ranking(metric: SparsificationMetric) -> tuple[dict[str, Curve], dict[str, dict[str, float]]]:
    """Curves by name, and the classes' IoU in percent."""
    state = metric.measured["pixels"]
    values = state.compute()
    curves = {
        "sparsification": Curve(list(state.removed), values["curve"].tolist(), values["oracle"].tolist()),
        "risk_coverage": risk_coverage_curve(state.levels.errors),
    }
    return curves, {"IoU": _by_class(metric, 100 * state.levels.class_iou)}


def _by_class(metric: BaseMetric, values: Tensor) -> dict[str, float]:
    return dict(zip(metric.dataset_meta["classes"], values.tolist(), strict=True))


def _reliability(evaluation: Evaluation) -> Reliability | None:
    found = [m for m in evaluation.evaluators if isinstance(m, SegCalibrationMetric)]
    return Reliability.of(found[0].measured["calibration"].result()) if found else None


def _uncertainty_per_class(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    for metric in evaluation.evaluators:
        if isinstance(metric, UncertaintyMetric):
            return {"uncertainty": _by_class(metric, metric.measured["student"].compute()["per_group"])}
    return {}
