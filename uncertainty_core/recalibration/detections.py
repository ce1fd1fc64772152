"""Calibrators fitted to detections in COCO's format, and applied to them.

Which detections count is decided by their scores before, else a calibrator that lowers scores would improve the numbers
by hiding detections.

Shapes: D detections.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..detection import box_std
from ..detection.coco_format import CocoFormatError, Detections, GroundTruth, check_detections, read_scores
from ..detection.evaluation import MatchedDetections, box_errors, match_images
from ..detection.matching import IGNORED, TRUE_POSITIVE
from ..detection.settings import Protocol, Settings
from .base import BOXES, SCORES, Calibrator, check_fits, register
from .recipes import Recipe
from .scores import ScoreCalibrator

Number = TypeVar("Number", Tensor, np.ndarray, float)


@dataclass(frozen=True, eq=False)
class Samples:
    """What a calibrator is fitted to: score, IoU (0 for a miss) and category of each detection that counts (D,)."""

    score: Tensor
    iou: Tensor
    hit: Tensor
    category: Tensor

    def target(self, name: str) -> Tensor:
        """What the score is to tell (D,): "hit" or "iou"."""
        return self.hit.double() if name == "hit" else self.iou


def match_at(
    ground_truth: GroundTruth, detections: Detections, iou_threshold: float, protocol: Protocol = "coco"
) -> tuple[MatchedDetections, int]:
    """The matched detections, and the place of `iou_threshold`, 0 for any overlap, among their thresholds."""
    settings = Settings((iou_threshold or 0.5,), protocol=protocol)
    return match_images(ground_truth, detections, settings), settings.all_iou_thresholds.index(iou_threshold)


def samples(
    ground_truth: GroundTruth, detections: Detections, iou_threshold: float = 0.5, score_threshold: float = 0.05
) -> Samples:
    """Detections with a score before of at least `score_threshold`, and what they found at `iou_threshold`."""
    matched, at = match_at(ground_truth, detections, iou_threshold)
    outcome = matched.calibration_outcome[at]
    counts = (outcome != IGNORED) & (matched.detections.score_before >= score_threshold)
    return samples_where(matched, at, counts)


def samples_where(matched: MatchedDetections, at: int, counts: np.ndarray) -> Samples:
    """Those detections that count (D,), and what they found at the threshold number `at`."""
    of = matched.detections
    hit = matched.calibration_outcome[at] == TRUE_POSITIVE
    columns = (of.score, matched.iou[at], hit, of.category)
    return Samples(*(torch.from_numpy(column[counts]) for column in columns))


def fit_to_detections(
    ground_truth: GroundTruth,
    detections: Detections,
    recipe: Recipe | None = None,
    iou_threshold: float | None = None,
    score_threshold: float = 0.05,
) -> ScoreCalibrator:
    """The calibrator for which scores tell best what detections find.

    Args:
        ground_truth, detections: of held-out images.
        recipe: what is fitted; one temperature by default.
        iou_threshold: a hit has at least this IoU, and 0 is any overlap; see `Recipe.default_iou`.
        score_threshold: lower scores are not looked at.
    """
    recipe = recipe or Recipe()
    iou_threshold = recipe.default_iou if iou_threshold is None else iou_threshold
    found = samples(ground_truth, detections, iou_threshold, score_threshold)
    return recipe.fit(found.score, found.target(recipe.target), found.category, ground_truth.category_names)


def calibrated(detections: Detections, calibrator: ScoreCalibrator) -> Detections:
    """The detections with calibrated scores, in their order anew; `score_before` stays."""
    score = calibrator(torch.from_numpy(detections.score), torch.from_numpy(detections.category)).numpy()
    return check_detections(**vars(detections) | {"score": score})


@register
@dataclass(frozen=True)
class ConformalBoxes(Calibrator):
    """A factor for deviations of boxes: intervals of `level` then cover that share of sides of held-out boxes."""

    task = BOXES
    kind = "conformal"

    factor: float
    level: float

    def __call__(self, std: Number) -> Number:
        """Deviations (...) times the factor: a tensor, an array or a number."""
        return std * self.factor


def fit_to_boxes(
    ground_truth: GroundTruth, detections: Detections, level: float = 0.9, score_threshold: float = 0.05
) -> ConformalBoxes:
    """The factor for `detections.box_std`, from the sides of true positives at IoU 0.5, see `conformal_factor`."""
    if detections.box_std is None:
        raise CocoFormatError("the detections hold no 'box_std': train the detector with MODEL.DDN.BOX_STD True")
    matched, at = match_at(ground_truth, detections, 0.5)
    found = box_errors(ground_truth, matched, at, score_threshold)
    return ConformalBoxes(box_std.conformal_factor(found.error, found.std, level), level)


def scale_boxes(detections: Detections, calibrator: ConformalBoxes) -> Detections:
    """The detections with scaled deviations."""
    return replace(detections, box_std=calibrator(detections.box_std))


def apply_to_results(
    source: Sequence[dict[str, Any]] | str | Path,
    calibrator: ScoreCalibrator | ConformalBoxes,
    category_ids: Sequence[Any] = (),
) -> list[dict[str, Any]]:
    """COCO results, in a file or already read from one, with calibrated scores and the old ones as "score_before".

    A calibrator of boxes changes "box_std" alone.

    Args:
        source: results.
        calibrator: of scores.
        category_ids: of the ground truth, sorted, for a calibrator that is class-wise.
    """
    results, score = read_scores(source)
    if calibrator.task == BOXES:
        return [result | {"box_std": [calibrator(std) for std in result["box_std"]]} for result in results]
    category = None
    if calibrator.num_classes is not None:
        check_fits(calibrator, SCORES, len(category_ids))
        number = {category_id: k for k, category_id in enumerate(category_ids)}
        category = torch.tensor([_category(number, result) for result in results], dtype=torch.int64)
    new = calibrator(torch.from_numpy(score), category).tolist()
    return [
        {"score_before": result["score"], **result, "score": value} for result, value in zip(results, new, strict=True)
    ]


def _category(number: dict[Any, int], result: dict[str, Any]) -> int:
    try:
        return number[result["category_id"]]
    except KeyError:
        raise CocoFormatError(
            f"a detection has the 'category_id' {result.get('category_id')!r}, which the calibrator was not fitted for"
        ) from None
