"""What an evaluation looks like: tables for people, files for programs, pictures for papers."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..catalog import FORMAT, in_order
from ..io.files import write_png, write_text
from ..io.strict_json import strict_json
from .average_precision import IOU_THRESHOLDS
from .calibration import GEOMETRY_BINS, LOCALISATION_BINS
from .evaluation import CalibrationAt, DetectionEvaluation, recall_ranks
from .matching import AREA_RANGES, OBJECT_THRESHOLDS


def tables(evaluation: DetectionEvaluation, per_category: bool = False) -> str:
    """Readable tables of all scores over all categories, and on demand of each."""
    settings = evaluation.settings
    federated = "" if evaluation.ground_truth.federated is None else "; federated annotations, as in LVIS"
    protocol = "" if settings.protocol == "coco" else f"; LaECE and LaACE as in {settings.protocol}"
    blocks = [
        f"Average precision and recall, percent{federated}",
        _columns(evaluation.precision, 6),
        f"Calibration: scores >= {settings.score_threshold:g}, {settings.num_bins} bins{protocol}",
        _by_threshold(evaluation),
        f"Calibration of objects, mean over IoU {' and '.join(f'{t:g}' for t in OBJECT_THRESHOLDS)}",
        _columns({"oce": evaluation.oce}, 6),
    ]
    if evaluation.box_std is not None:
        blocks += ["Deviations of boxes, on true positives", _columns(evaluation.box_std, 6)]
    if per_category:
        blocks += ["Of each category", _by_category(evaluation)]
    return "\n".join(blocks)


def write_report(evaluation: DetectionEvaluation, folder: str | Path) -> list[Path]:
    """Write into `folder` calibration.json, and for each IoU threshold the bins as JSON and the reliability diagram."""
    from ..plots import reliability_diagram

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "calibration.json"]
    write_text(written[0], to_json(evaluation))
    for at in evaluation.calibration:
        stem = f"reliability_iou{100 * at.iou_threshold:g}"
        written += [folder / f"{stem}.json", folder / f"{stem}.png"]
        write_text(written[-2], at.result.to_json())
        figure = reliability_diagram(at.result, "msce", f"true positives: IoU >= {at.iou_threshold:g}")
        write_png(written[-1], figure)
    return written


def calibration_at(evaluation: DetectionEvaluation) -> CalibrationAt:
    """The calibration at the IoU threshold of comparisons; at the first one if that was not measured."""
    settings = evaluation.settings
    return evaluation.calibration[settings.iou_thresholds.index(settings.compared_at)]


def measured(evaluation: DetectionEvaluation) -> dict[str, float]:
    """Every metric by name; AP and AR in percent, calibration in plain values, deviations of boxes in pixels."""
    calibration = calibration_at(evaluation).metrics | evaluation.any_overlap.metrics | {"oce": evaluation.oce}
    return evaluation.precision | calibration | (evaluation.box_std or {})


def to_json(evaluation: DetectionEvaluation) -> str:
    """Strict JSON of every score beside its settings; a number that JSON lacks (NaN, infinity) is a string."""
    truth = evaluation.ground_truth
    content = {
        "format": FORMAT,
        "categories": [
            {"id": category_id, "name": name}
            for category_id, name in zip(truth.category_ids, truth.category_names, strict=True)
        ],
        "bbox": {
            "unit": "percent",
            "settings": {
                "iou_thresholds": IOU_THRESHOLDS.round(2).tolist(),
                "max_detections": recall_ranks(truth),
                "area_ranges": AREA_RANGES,
            },
            "metrics": evaluation.precision,
            "per_category": evaluation.precision_per_category,
        },
        "calibration": [
            {
                "unit": "1",
                "settings": _settings(evaluation, at),
                "num_detections": at.result.num_samples,
                "metrics": at.metrics,
                "per_category": at.per_category,
            }
            for at in (*evaluation.calibration, evaluation.any_overlap)
        ],
    }
    content["objects"] = {
        "unit": "1",
        "settings": {"iou_thresholds": OBJECT_THRESHOLDS, "score_threshold": evaluation.settings.score_threshold},
        "metrics": {"oce": evaluation.oce},
        "per_category": {"oce": evaluation.oce_per_category},
    }
    if evaluation.box_std is not None:
        content["box_std"] = {"unit": "pixel", "metrics": evaluation.box_std}
    return strict_json(content)


def _settings(evaluation: DetectionEvaluation, at: CalibrationAt) -> dict[str, Any]:
    return {
        "iou_threshold": at.iou_threshold,
        "score_threshold": evaluation.settings.score_threshold,
        "num_bins": evaluation.settings.num_bins,
        "laece_bins": LOCALISATION_BINS,
        "d_ece_box_bins_per_dimension": GEOMETRY_BINS,
        "edges": evaluation.settings.edges,
        "max_detections": evaluation.max_detections,
        "protocol": evaluation.settings.protocol,
        "federated": evaluation.ground_truth.federated is not None,
    }


def _columns(values: dict[str, float], width: int) -> str:
    """Names above numbers, `width` of them in a row."""
    columns = in_order(values)
    rows = [columns[k : k + width] for k in range(0, len(columns), width)]
    return _aligned(
        [
            line
            for row in rows
            for line in ([column.label for column in row], [column.text(values[column.key]) for column in row])
        ]
    )


def _by_threshold(evaluation: DetectionEvaluation) -> str:
    columns = {f"IoU {at.iou_threshold:g}": at.metrics for at in evaluation.calibration}
    columns["any overlap"] = {key.removesuffix("0"): value for key, value in evaluation.any_overlap.metrics.items()}
    rows = in_order(evaluation.calibration[0].metrics)
    return _aligned(
        [
            ["", *columns],
            *([row.head, *(row.text(of[row.key]) for of in columns.values() if row.key in of)] for row in rows),
        ]
    )


def _by_category(evaluation: DetectionEvaluation) -> str:
    """A table of average precision and what needs no threshold, and one of each IoU threshold."""
    blocks = {"": evaluation.precision_per_category | evaluation.any_overlap.per_category}
    blocks[""] |= {"oce": evaluation.oce_per_category}
    blocks |= {f"IoU {at.iou_threshold:g}": at.per_category for at in evaluation.calibration}
    tables = []
    for title, measured in blocks.items():
        columns = in_order(measured)
        lines = [[title, *(column.head for column in columns)]]
        for k, name in enumerate(evaluation.ground_truth.category_names):
            lines.append([name, *(column.text(measured[column.key][k]) for column in columns)])
        tables.append(_aligned(lines))
    return "\n".join(tables)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells below each other, the first to the left and the others to the right; the last may be missing."""
    widths = [max(map(len, filter(None, column))) for column in zip_longest(*lines)]
    return "\n".join(
        "  ".join(
            f"{cell:{'>' if k else '<'}{width}}" for k, (cell, width) in enumerate(zip(line, widths, strict=False))
        )
        for line in lines
    )
