"""Thresholds of a detector before and after its scores are calibrated, and the protocol of Kuzucu et al. (ECCV 2024).

On validation images: per category the threshold with the least localisation-recall-precision error (LRP) on the
original scores; a calibrator fitted to the detections above it; and again the threshold of least LRP, on the calibrated
scores. On test images: the same three steps, then LaECE, LaACE and LRP of what is left.

Shapes: D detections, C categories.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..detection.calibration import lrp
from ..detection.coco_format import Detections, GroundTruth
from ..detection.evaluation import MatchedDetections, counted_boxes, evaluate_calibration, match_images
from ..detection.matching import IGNORED, TRUE_POSITIVE
from ..detection.settings import Protocol, Settings
from .base import CalibratorError, register
from .class_wise import fit_class_wise
from .detections import Samples, calibrated, match_at, samples_where
from .recipes import Recipe, fit_named
from .scores import ScoreCalibrator, check_scores


@register
@dataclass(frozen=True)
class OperatingPoints(ScoreCalibrator):
    """A calibrator of detections, and which of them to keep; calling it maps scores alone.

    calibrator: of scores.
    before: the least original score of each category (C,).
    after: the least calibrated score of each category (C,).
    """

    kind: ClassVar[str] = "operating_points"
    calibrator: ScoreCalibrator
    before: tuple[float, ...]
    after: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after) or self.calibrator.num_classes not in (None, len(self.before)):
            raise CalibratorError("operating points need a threshold of each class of the calibrator, before and after")

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.before)

    def __call__(self, score: Tensor, category: Tensor | None = None) -> Tensor:
        """The calibrated scores."""
        return self.calibrator(score, category)

    def keeps(self, score: Tensor, category: Tensor) -> Tensor:
        """Whether detections of these original scores stay, bool of the same shape."""
        check_scores(score)
        before, after = (
            torch.tensor(limits, dtype=torch.float64, device=score.device)[category]
            for limits in (self.before, self.after)
        )
        return (score.double() >= before) & (self(score.double(), category) >= after)


def lrp_optimal_thresholds(
    score: np.ndarray,
    outcome: np.ndarray,
    iou: np.ndarray,
    category: np.ndarray,
    num_ground_truth: np.ndarray,
    iou_threshold: float,
    protocol: Protocol = "coco",
) -> np.ndarray:
    """The score (C,) from which on the detections of each category have the least LRP; 0 where none of them hits.

    Args:
        score: (D,).
        outcome: FALSE_POSITIVE, TRUE_POSITIVE or IGNORED (D,).
        iou: with the box found (D,).
        category: (D,) integers in [0, C).
        num_ground_truth: boxes of each category (C,).
        iou_threshold: t.
        protocol: "coco" keeps or drops equal scores together; "fiveai" looks behind each of them, in the order given,
            and behind detections to be ignored, too.
    """
    thresholds = np.zeros(len(num_ground_truth))
    for c in np.unique(category[outcome == TRUE_POSITIVE]):
        of_class = np.flatnonzero((category == c) & ((outcome != IGNORED) | (protocol == "fiveai")))
        of_class = of_class[np.argsort(-score[of_class], kind="stable")]
        hit, counted = outcome[of_class] == TRUE_POSITIVE, outcome[of_class] != IGNORED
        found, mistakes = np.cumsum(hit), np.cumsum(counted & ~hit)
        missed = num_ground_truth[c] - found
        distance = np.cumsum(np.where(hit, 1 - iou[of_class], 0)) / (1 - iou_threshold)
        error = (distance + mistakes + missed) / (found + mistakes + missed)
        if protocol == "coco":
            error[:-1][score[of_class][1:] == score[of_class][:-1]] = np.inf
        thresholds[c] = score[of_class][error.argmin()]
    return thresholds


def fit_operating_points(
    ground_truth: GroundTruth,
    detections: Detections,
    recipe: Recipe | None = None,
    iou_threshold: float = 0.0,
    protocol: Protocol = "coco",
) -> OperatingPoints:
    """Thresholds and calibrator from the detections of validation images.

    Args:
        ground_truth, detections: of validation images.
        recipe: of the calibrator; by default class-wise isotonic regression towards the IoU.
        iou_threshold: a hit has at least this IoU; 0 is any overlap, as published.
        protocol: "fiveai" for what fiveai/detection_calibration does: a class has a fit of its own from one detection
            on, one without any, or without boxes, keeps its scores; see also `lrp_optimal_thresholds` and `Settings`.
    """
    recipe = recipe or Recipe("isotonic", class_wise=True, target="iou")
    before = _thresholds(ground_truth, detections, iou_threshold, protocol)
    kept = detections.take(np.flatnonzero(detections.score >= before[detections.category]))
    matched, at = match_at(ground_truth, kept, iou_threshold, protocol)
    with_boxes = _num_ground_truth(ground_truth)[kept.category] > 0
    counts = (matched.calibration_outcome[at] != IGNORED) & (with_boxes | (protocol == "coco"))
    calibrator = _fit(recipe, samples_where(matched, at, counts), ground_truth, protocol)
    after = _thresholds(ground_truth, calibrated(kept, calibrator), iou_threshold, protocol)
    return OperatingPoints(calibrator, tuple(before.tolist()), tuple(after.tolist()))


def _fit(recipe: Recipe, samples: Samples, ground_truth: GroundTruth, protocol: Protocol) -> ScoreCalibrator:
    columns = samples.score, samples.target(recipe.target), samples.category
    if protocol == "coco" or not recipe.class_wise:
        return recipe.fit(*columns, ground_truth.category_names)
    method = fit_named(recipe.method)
    identity = type(method(*columns[:2]))()
    return fit_class_wise(method, *columns, ground_truth.category_names, n_min=1, pooled=identity)


def _thresholds(
    ground_truth: GroundTruth, detections: Detections, iou_threshold: float, protocol: Protocol
) -> np.ndarray:
    matched, at = match_at(ground_truth, detections, iou_threshold, protocol)
    part = np.flatnonzero(matched.takes_part)
    return lrp_optimal_thresholds(
        matched.detections.score[part],
        matched.calibration_outcome[at, part],
        matched.iou[at, part],
        matched.detections.category[part],
        _num_ground_truth(ground_truth),
        iou_threshold,
        protocol,
    )


def _num_ground_truth(ground_truth: GroundTruth) -> np.ndarray:
    return np.bincount(ground_truth.category[counted_boxes(ground_truth)], minlength=ground_truth.num_categories)


def kuzucu(
    points: OperatingPoints,
    ground_truth: GroundTruth,
    detections: Detections,
    iou_threshold: float = 0.0,
    protocol: Protocol = "coco",
) -> dict[str, float]:
    """Laece, laace, lrp and all other metrics of the detections of test images that `points` keep, by name.

    Args:
        points: fitted on other images.
        ground_truth, detections: of test images.
        iou_threshold: a hit has at least this IoU; 0 is any overlap, as published.
        protocol: see `fit_operating_points`.
    """
    score, category = torch.from_numpy(detections.score), torch.from_numpy(detections.category)
    kept = detections.take(np.flatnonzero(points.keeps(score, category).numpy()))
    settings = Settings((iou_threshold or 0.5,), score_threshold=0, protocol=protocol)
    matched = match_images(ground_truth, calibrated(kept, points), settings)
    at = settings.all_iou_thresholds.index(iou_threshold)
    found = evaluate_calibration(ground_truth, matched, settings, at)
    if protocol == "coco":
        return found.metrics
    return found.metrics | {"lrp": _fiveai_lrp(ground_truth, matched, at, iou_threshold)}


def _fiveai_lrp(ground_truth: GroundTruth, matched: MatchedDetections, at: int, iou_threshold: float) -> float:
    """The mean LRP of categories with boxes, where a hit may have no overlap."""
    num_ground_truth = torch.from_numpy(_num_ground_truth(ground_truth))
    with_boxes = num_ground_truth > 0

    def per_category(values: np.ndarray) -> Tensor:
        of_detections = matched.detections.category, values, ground_truth.num_categories
        return torch.from_numpy(np.bincount(*of_detections))[with_boxes]

    outcome, iou = matched.calibration_outcome[at], matched.iou[at]
    found, counted = per_category(outcome == TRUE_POSITIVE), per_category(outcome != IGNORED)
    return lrp(found, per_category(iou), counted, num_ground_truth[with_boxes], iou_threshold).mean().item()
