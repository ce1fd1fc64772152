"""From ground truth and detections to every score: match once, then count.

Images may be divided among processes: `match_images` works on any of them, and `merge` puts the parts together.

Shapes: D detections, C categories, T COCO's ten IoU thresholds, S those of calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..functional.calibration import CalibrationResult
from . import average_precision, box_std, federated, fiveai, matching
from .average_precision import PrecisionRecall
from .calibration import (
    box_geometry,
    calibration_result,
    detection_sums,
    mean_over_categories,
    metrics_of,
    metrics_per_category,
)
from .coco_format import Detections, GroundTruth, check_federated, joined
from .settings import Settings

# What is of use at threshold 0 too: these tell good boxes from bad by their IoU.
_LOCALISATION_AWARE = ("laece", "laace")


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """Detections, and what they found.

    detections: sorted by image, category and falling score.
    takes_part: whether each is among the best 100 of its image and category (D,), or as `federated` has it; the others
        are ignored.
    rank: of each among those of its image and category (D,).
    outcome: at COCO's thresholds in each area range, uint8 (T, D).
    calibration_outcome: at the thresholds of calibration, uint8 (S, D).
    iou: with the box found, 0 for none; float64 (S, D).
    truth: index of the box found, -1 for none; int32 (S, D).
    """

    detections: Detections
    takes_part: np.ndarray
    rank: np.ndarray
    outcome: dict[str, np.ndarray]
    calibration_outcome: np.ndarray
    iou: np.ndarray
    truth: np.ndarray


def match_images(ground_truth: GroundTruth, detections: Detections, settings: Settings) -> MatchedDetections:
    """Match detections of whole images as pycocotools does, and where annotations are federated as LVIS does."""
    check_federated(ground_truth, settings.federated)
    rank = matching.rank_in_group(detections.group(ground_truth.num_categories))
    if ground_truth.federated is None:
        takes_part = rank < matching.MAX_DETECTIONS
        forgiven = ~takes_part
    else:
        takes_part = federated.takes_part(ground_truth, detections)
        forgiven = ~takes_part | federated.may_be_unlabelled(ground_truth, detections)
    pairs = matching.candidate_pairs(ground_truth, detections, takes_part, disjoint=settings.protocol == "fiveai")
    area = detections.box[:, 2] * detections.box[:, 3]

    def match(area_range: str, iou_thresholds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        ignored = _ignored(ground_truth, area_range)
        partner = matching.match(pairs, len(detections), ground_truth.crowd, ignored, iou_thresholds)
        out_of_range = matching.outside(area, matching.AREA_RANGES[area_range])
        return partner, matching.outcome(partner, ignored, forgiven | out_of_range)

    partner, calibration_outcome = match("all", settings.all_iou_thresholds)
    at, found = np.nonzero(calibration_outcome == matching.TRUE_POSITIVE)
    truth = partner[at, found]
    iou = np.zeros(partner.shape)
    exact = matching.box_iou(detections.box[found], ground_truth.box[truth], ground_truth.crowd[truth])
    iou[at, found] = np.minimum(exact, 1)  # that of equal boxes may be off by a rounding error
    outcome = {name: match(name, average_precision.IOU_THRESHOLDS)[1] for name in matching.AREA_RANGES}
    of_true = np.where(calibration_outcome == matching.TRUE_POSITIVE, partner, -1)
    return MatchedDetections(detections, takes_part, rank, outcome, calibration_outcome, iou, of_true)


def merge(parts: Sequence[MatchedDetections]) -> MatchedDetections:
    """All of `parts`, which have no image in common, as if matched at once."""
    detections = joined([part.detections for part in parts])
    in_order = np.argsort(detections.image, kind="stable")

    def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays, axis=-1)[..., in_order]

    return MatchedDetections(
        detections=detections.take(in_order),
        takes_part=join([part.takes_part for part in parts]),
        rank=join([part.rank for part in parts]),
        outcome={name: join([part.outcome[name] for part in parts]) for name in matching.AREA_RANGES},
        calibration_outcome=join([part.calibration_outcome for part in parts]),
        iou=join([part.iou for part in parts]),
        truth=join([part.truth for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class CalibrationAt:
    """Calibration at one IoU threshold.

    metrics: over all categories, by name; per_category: of each category, lists of length C.
    result: with every bin of the score.
    """

    iou_threshold: float
    metrics: dict[str, float]
    per_category: dict[str, list[float]]
    result: CalibrationResult


@dataclass(frozen=True, eq=False)
class DetectionEvaluation:
    """Every score: average precision and recall in percent, calibration in plain values.

    matched: what it was counted from.
    precision: COCO's twelve numbers, or LVIS's, by name; precision_per_category: AP and AR100, lists of length C.
    calibration: at each threshold of the settings.
    any_overlap: at threshold 0, of which laece0 and laace0 alone are of use.
    object_error: of each ground-truth box, see `matching.object_errors` (G,); NaN for a crowd.
    box_std: whether deviations of boxes tell their errors, by name; None where they are not known.
    box_factor: what their intervals are multiplied by for "coverage90_conformal", see `with_box_factor`.
    """

    settings: Settings
    ground_truth: GroundTruth
    matched: MatchedDetections
    precision: dict[str, float]
    precision_per_category: dict[str, list[float]]
    calibration: list[CalibrationAt]
    any_overlap: CalibrationAt
    object_error: np.ndarray
    box_std: dict[str, float] | None = None
    box_factor: float | None = None

    @property
    def max_detections(self) -> int:
        """How many detections take part: of each image and category, or of each image if annotations are federated."""
        return recall_ranks(self.ground_truth)[-1]

    @property
    def oce(self) -> float:
        """Object-level calibration error, NaN without ground truth."""
        return _mean(self.object_error)

    @property
    def oce_per_category(self) -> list[float]:
        """The same of each category (C,)."""
        category = self.ground_truth.category
        return [_mean(self.object_error[category == c]) for c in range(self.ground_truth.num_categories)]

    @property
    def calibration_metrics(self) -> dict[str, float]:
        """Over all categories, flat: "ece@50" is ece at the IoU threshold 0.5; laece0, laace0, oce need none."""
        return self._flat("metrics") | {"oce": self.oce}

    @property
    def calibration_per_category(self) -> dict[str, list[float]]:
        """The same of each category, lists of length C."""
        return self._flat("per_category") | {"oce": self.oce_per_category}

    def _flat(self, what: str) -> dict[str, Any]:
        named = {
            f"{name}@{100 * at.iou_threshold:g}": value
            for at in self.calibration
            for name, value in getattr(at, what).items()
        }
        return named | getattr(self.any_overlap, what)


def evaluate(ground_truth: GroundTruth, matched: MatchedDetections, settings: Settings) -> DetectionEvaluation:
    """Count what `match_images` found. Images without detections count with all they hold as missed."""
    of_area = precision_recall_by_area(ground_truth, matched)
    any_overlap, *calibration = (
        evaluate_calibration(ground_truth, matched, settings, k) for k in range(len(settings.all_iou_thresholds))
    )
    return DetectionEvaluation(
        settings=settings,
        ground_truth=ground_truth,
        matched=matched,
        precision=average_precision.summarize(of_area, ground_truth.federated),
        precision_per_category=average_precision.per_category(of_area["all"]),
        calibration=calibration,
        any_overlap=replace(
            any_overlap,
            metrics={f"{name}0": any_overlap.metrics[name] for name in _LOCALISATION_AWARE},
            per_category={f"{name}0": any_overlap.per_category[name] for name in _LOCALISATION_AWARE},
        ),
        object_error=np.where(
            ground_truth.crowd,
            np.nan,
            matching.object_errors(ground_truth, matched.detections, _counted(matched, settings)),
        ),
        box_std=_box_std_metrics(ground_truth, matched, settings),
    )


def _counted(matched: MatchedDetections, settings: Settings) -> np.ndarray:
    """Detections that take part with a score that is high enough (D,), bool."""
    return matched.takes_part & (matched.detections.score_before >= settings.score_threshold)


def _mean(values: np.ndarray) -> float:
    """Of those that are not NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def with_box_factor(evaluation: DetectionEvaluation, factor: float) -> DetectionEvaluation:
    """The evaluation of a detector with deviations of boxes, and for these a factor that other images have given."""
    measured = _box_std_metrics(evaluation.ground_truth, evaluation.matched, evaluation.settings, factor)
    return replace(evaluation, box_std=measured, box_factor=factor)


def _box_std_metrics(
    ground_truth: GroundTruth, matched: MatchedDetections, settings: Settings, factor: float | None = None
) -> dict[str, float] | None:
    if matched.detections.box_std is None:
        return None
    at = settings.all_iou_thresholds.index(settings.compared_at)
    found = box_errors(ground_truth, matched, at, settings.score_threshold)
    return {name: value.item() for name, value in box_std.metrics(found, factor=factor).items()}


def box_errors(
    ground_truth: GroundTruth, matched: MatchedDetections, at: int, score_threshold: float
) -> box_std.BoxErrors:
    """The true positives at the threshold number `at` whose score before is high enough."""
    truth = matched.truth[at]
    counts = (truth >= 0) & (matched.detections.score_before >= score_threshold)
    return box_std.BoxErrors.of(ground_truth, matched.detections, truth, matched.iou[at], counts)


def at_equal_count(evaluations: Sequence[DetectionEvaluation], iou_threshold: float) -> list[CalibrationAt]:
    """Calibration of each on as many detections as the one with the fewest has, so that none gains by more low scores.

    These are the best over all images, by their scores before recalibration.

    Args:
        evaluations: on the same images.
        iou_threshold: one of their settings.
    """
    indices = [evaluation.settings.all_iou_thresholds.index(iou_threshold) for evaluation in evaluations]
    most = min(e.calibration[k - 1].result.num_samples for e, k in zip(evaluations, indices, strict=True))
    return [
        evaluate_calibration(e.ground_truth, e.matched, e.settings, k, most)
        for e, k in zip(evaluations, indices, strict=True)
    ]


def precision_recall_by_area(ground_truth: GroundTruth, matched: MatchedDetections) -> dict[str, PrecisionRecall]:
    """Precision and recall at COCO's thresholds in each area range."""
    in_order, category = average_precision.by_category(matched.detections), matched.detections.category
    return {
        name: average_precision.precision_recall(
            outcome, in_order, category, matched.rank, _num_ground_truth(ground_truth, name), recall_ranks(ground_truth)
        )
        for name, outcome in matched.outcome.items()
    }


def recall_ranks(ground_truth: GroundTruth) -> tuple[int, ...]:
    """How many detections recall looks at."""
    return average_precision.COCO_RANKS if ground_truth.federated is None else average_precision.LVIS_RANKS


def evaluate_calibration(
    ground_truth: GroundTruth, matched: MatchedDetections, settings: Settings, k: int, most: int | None = None
) -> CalibrationAt:
    """Calibration at the threshold number `k`, of the best `most` detections by their scores before recalibration."""
    iou_threshold = settings.all_iou_thresholds[k]
    score, ignored = matched.detections.score_before, matched.calibration_outcome[k] == matching.IGNORED
    counted = np.flatnonzero(~ignored & (score >= settings.score_threshold))
    if most is not None:
        counted = np.sort(counted[np.argsort(-score[counted], kind="stable")[:most]])
    detections = matched.detections.take(counted)
    sums = detection_sums(
        torch.from_numpy(detections.score),
        torch.from_numpy(matched.iou[k, counted]),
        torch.from_numpy(detections.category),
        box_geometry(torch.from_numpy(detections.box), torch.from_numpy(ground_truth.image_size[detections.image])),
        torch.from_numpy(_num_ground_truth(ground_truth, "all")),
        settings.num_bins,
        settings.edges,
    )
    measured = iou_threshold, settings.num_bins
    metrics = {name: value.item() for name, value in metrics_of(sums, *measured).items()}
    per_category = {name: values.tolist() for name, values in metrics_per_category(sums, *measured).items()}
    result = calibration_result(sums, *measured, settings.edges)
    if settings.protocol == "fiveai":
        lowest = settings.score_threshold if most is None else score[counted].min(initial=1)
        others = np.flatnonzero(ignored & matched.takes_part & (score >= lowest))
        theirs = _fiveai_errors(ground_truth, matched, k, counted, others)
        means = {name: mean_over_categories(torch.from_numpy(v), name).item() for name, v in theirs.items()}
        means["classes"] = float(np.isfinite(theirs["laece"]).sum())
        metrics |= means
        per_category |= {name: values.tolist() for name, values in theirs.items()}
        result = replace(result, scores=result.scores | means)
    return CalibrationAt(iou_threshold, metrics, per_category, result)


def _fiveai_errors(
    ground_truth: GroundTruth, matched: MatchedDetections, k: int, counted: np.ndarray, ignored: np.ndarray
) -> dict[str, np.ndarray]:
    """`fiveai.localisation_errors` of those detections, given by their indices."""
    index = np.concatenate((counted, ignored))
    return fiveai.localisation_errors(
        matched.detections.score[index],
        matched.iou[k, index],
        matched.detections.category[index],
        np.arange(len(index)) >= len(counted),
        _num_ground_truth(ground_truth, "all"),
    )


def _ignored(ground_truth: GroundTruth, area_range: str) -> np.ndarray:
    return ground_truth.crowd | matching.outside(ground_truth.area, matching.AREA_RANGES[area_range])


def _num_ground_truth(ground_truth: GroundTruth, area_range: str) -> np.ndarray:
    """Boxes that count in each category, int64 (C,)."""
    counted = ground_truth.category[counted_boxes(ground_truth, area_range)]
    return np.bincount(counted, minlength=ground_truth.num_categories)


def counted_boxes(ground_truth: GroundTruth, area_range: str = "all") -> np.ndarray:
    """Which boxes are to be found, bool (G,): neither crowds nor outside of the area range."""
    return ~_ignored(ground_truth, area_range)
