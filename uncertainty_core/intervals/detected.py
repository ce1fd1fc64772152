"""What is kept of the detections of each image, and every metric of any number of draws from the images.

Shapes: I images, R resamples, C categories, G ground-truth boxes, D detections, T COCO's ten IoU thresholds.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..checks import Edges
from ..detection import box_std
from ..detection.average_precision import IOU_THRESHOLDS, RECALL_THRESHOLDS, by_category
from ..detection.calibration import (
    GEOMETRY_BINS,
    LOCALISATION_BINS,
    SCORES,
    box_geometry,
    detection_scores,
    geometry_cell,
    lrp,
)
from ..detection.evaluation import DetectionEvaluation, box_errors, counted_boxes
from ..detection.matching import IGNORED, OUTCOMES, TRUE_POSITIVE
from ..detection.settings import Protocol
from ..functional.calibration import bin_index, fine_bins
from .arrays import Layout, check_arrays, check_count, check_within
from .bins import drawn_bin_metrics
from .cells import CellSums
from .resampling import NUM_RESAMPLES, Measure

_LAYOUTS = {
    "truth_image": Layout("whole numbers", "G"),
    "truth_category": Layout("whole numbers", "G"),
    "truth_error": Layout("floats", "G"),
    "image": Layout("whole numbers", "D"),
    "category": Layout("whole numbers", "D"),
    "score": Layout("floats", "D"),
    "outcome": Layout("whole numbers", "TD"),
    "iou": Layout("floats", "2D"),
    "counted": Layout("true or false", "2D"),
    "place": Layout("whole numbers", "D"),
    "boxes.image": Layout("whole numbers", "N"),
    "boxes.error": Layout("floats", "N4"),
    "boxes.std": Layout("floats", "N4"),
    "boxes.size": Layout("floats", "N2"),
    "boxes.iou": Layout("floats", "N"),
}


@dataclass(frozen=True, eq=False)
class DetectedImages:
    """ids: of the images (I); num_categories: C.
    truth_image, truth_category: of each box that is to be found (G,).
    truth_error: how wrong is what detections tell of it (G,), see `matching.object_errors`.
    image, category, score: of each detection (D,), sorted by category, then by falling score.
    outcome: at COCO's thresholds, as `matching.outcome` gives it (T, D).
    iou: with the box found at the IoU threshold 0 and at `iou_threshold`, 0 for none (2, D).
    counted: which of them enter calibration at these thresholds (2, D), bool.
    place: cell of the box's place and size (D,), see `geometry_cell`.
    max_detections: of which the recall is.
    iou_threshold, num_bins, edges, protocol: as in the settings of the evaluation.
    boxes: the fields of `box_std.BoxErrors`, empty where deviations are not known.
    box_factor: as in the evaluation.
    """

    ids: list[str]
    num_categories: int
    truth_image: np.ndarray
    truth_category: np.ndarray
    truth_error: np.ndarray
    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    outcome: np.ndarray
    iou: np.ndarray
    counted: np.ndarray
    place: np.ndarray
    max_detections: int
    iou_threshold: float
    num_bins: int
    edges: Edges
    protocol: Protocol
    boxes: dict[str, np.ndarray] = field(default_factory=dict)
    box_factor: float | None = None

    def __post_init__(self) -> None:
        if self.boxes:
            box_std.BoxErrors(**self.boxes)  # has these fields and no others
        check_arrays(self, _LAYOUTS, T=len(IOU_THRESHOLDS), **{"2": 2, "4": 4})
        check_count(self, "num_categories", "num_bins")
        check_within(self, 0, len(self.ids) - 1, "image", "truth_image", "boxes.image")
        check_within(self, 0, self.num_categories - 1, "category", "truth_category")
        check_within(self, 0, 1, "score", "iou")
        check_within(self, 0, GEOMETRY_BINS**4 - 1, "place")
        check_within(self, min(OUTCOMES), max(OUTCOMES), "outcome")
        if not 0 < self.iou_threshold < 1:
            raise ValueError(f"iou_threshold must lie in (0, 1), got {self.iou_threshold}")
        order = np.lexsort((-self.score, self.category))
        if not np.array_equal(order, np.arange(len(order))):
            raise ValueError("score must fall within each category, and categories must rise")

    @classmethod
    def of(cls, evaluation: DetectionEvaluation, iou_threshold: float) -> "DetectedImages":
        """From a finished evaluation at one of its thresholds; of detections that count nowhere nothing is kept."""
        settings, matched, truth = evaluation.settings, evaluation.matched, evaluation.ground_truth
        levels = [settings.all_iou_thresholds.index(t) for t in (0.0, iou_threshold)]
        detections, outcome = matched.detections, matched.outcome["all"]
        counted = matched.calibration_outcome[levels] != IGNORED
        counted &= detections.score_before >= settings.score_threshold
        in_order, to_find = by_category(detections), counted_boxes(truth)
        kept = in_order[(counted.any(0) | (outcome != IGNORED).any(0))[in_order]]
        box, size = detections.box[kept], truth.image_size[detections.image[kept]]
        place = geometry_cell(box_geometry(torch.from_numpy(box), torch.from_numpy(size)), settings.edges)
        return cls(
            ids=[str(image_id) for image_id in truth.image_ids],
            num_categories=truth.num_categories,
            truth_image=truth.image[to_find].astype(np.int32),
            truth_category=truth.category[to_find].astype(np.int32),
            truth_error=evaluation.object_error[to_find],
            image=detections.image[kept].astype(np.int32),
            category=detections.category[kept].astype(np.int32),
            score=detections.score[kept],
            outcome=outcome[:, kept],
            iou=matched.iou[np.ix_(levels, kept)],
            counted=counted[:, kept],
            place=place.numpy().astype(np.int16),
            max_detections=evaluation.max_detections,
            iou_threshold=iou_threshold,
            num_bins=settings.num_bins,
            edges=settings.edges,
            protocol=settings.protocol,
            boxes={}
            if detections.box_std is None
            else vars(box_errors(truth, matched, levels[1], settings.score_threshold)),
            box_factor=evaluation.box_factor,
        )

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Every metric (R,) by name of the images drawn `weights` (I, R) times.

        Not among them: average precision and recall of boxes of one size, and what `protocol` has by other rules.
        """
        deviations = self.deviations(weights) if self.boxes else {}
        return self.precision(weights) | self.calibration(weights) | deviations

    @property
    def measures(self) -> dict[Measure, int]:
        """What gives metrics of drawn images, and of how many resamples: precision is costly."""
        costly = [self.precision, self.deviations] if self.boxes else [self.precision]
        return {self.calibration: NUM_RESAMPLES} | dict.fromkeys(costly, NUM_RESAMPLES // 5)

    def calibration(self, weights: Tensor) -> dict[str, Tensor]:
        """Those of `metrics` that are about the scores."""
        truth = self._truth.drawn(weights)
        any_overlap, at = self._counted
        values = at.metrics(weights, truth) | {
            f"{k}0": v for k, v in any_overlap.localisation(weights, any_overlap.categories.drawn(weights)).items()
        }
        values["oce"] = self._truth.drawn(weights, "error").sum(1) / truth.sum(1)
        return {name: value for name, value in values.items() if self.protocol == "coco" or name[:2] != "la"}

    def deviations(self, weights: Tensor) -> dict[str, Tensor]:
        """Those of `metrics` that are about the deviations of boxes."""
        found = box_std.BoxErrors(**self.boxes)
        return box_std.metrics(found, weights[torch.from_numpy(found.image).long()], self.box_factor)

    def precision(self, weights: Tensor) -> dict[str, Tensor]:
        """AP, AP50, AP75 and AR in percent."""
        truth, by_image = self._truth.drawn(weights), weights.T.contiguous()
        precision = torch.full((len(IOU_THRESHOLDS), *truth.shape), torch.nan, dtype=torch.float64)
        hits = torch.zeros_like(precision)
        limits = np.searchsorted(self.category, np.arange(self.num_categories + 1)).tolist()
        for c in truth.any(0).nonzero().flatten().tolist():
            of_category = slice(limits[c], limits[c + 1])
            drawn = by_image[:, torch.from_numpy(self.image[of_category]).long()]
            counted = drawn.cumsum(1)
            for t, outcome in enumerate(torch.from_numpy(self.outcome[:, of_category])):
                ignored = outcome == IGNORED
                found = (outcome == TRUE_POSITIVE).nonzero().flatten()
                before = counted[:, found]
                if ignored.any():
                    before = before - (drawn * ignored).cumsum(1)[:, found]
                precision[t, :, c] = _interpolated_precision(drawn[:, found], before, truth[:, c])
                hits[t, :, c] = drawn[:, found].sum(1)
        values = {
            "AP": precision.nanmean(2).nanmean(0),
            "AP50": precision[0].nanmean(1),
            "AP75": precision[5].nanmean(1),
            f"AR{self.max_detections}": (hits / truth).nanmean(2).nanmean(0),
        }
        return {name: 100 * value for name, value in values.items()}

    @cached_property
    def _truth(self) -> CellSums:
        image, category = (torch.from_numpy(values).long() for values in (self.truth_image, self.truth_category))
        return CellSums(image, category, self.num_categories, error=torch.from_numpy(self.truth_error))

    @cached_property
    def _counted(self) -> tuple["_Calibration", "_Calibration"]:
        return tuple(_Calibration(self, k, t) for k, t in enumerate((0.0, self.iou_threshold)))


def _interpolated_precision(drawn: Tensor, counted: Tensor, truth: Tensor) -> Tensor:
    """Mean over the recall thresholds of the best precision at that recall or more (R,), NaN without ground truth.

    A hit that is drawn w times counts at its last copy, where precision is best.

    Args:
        drawn: how often each hit is (R, H), by falling score.
        counted: detections down to it, itself included (R, H).
        truth: number of boxes (R,).
    """
    hits = drawn.cumsum(1)
    best = (hits / counted.clamp(min=1)).flip(1).cummax(1).values.flip(1) if drawn.shape[1] else hits
    none = torch.zeros(len(truth), 1, dtype=torch.float64)
    thresholds = torch.from_numpy(RECALL_THRESHOLDS).expand(len(truth), -1).contiguous()
    reached = torch.searchsorted(hits / truth.unsqueeze(1), thresholds)
    mean = torch.cat((best, none), 1).gather(1, reached).mean(1)
    return mean.masked_fill(truth == 0, torch.nan)


class _Calibration:
    """Calibration at one of the two thresholds, of the detections that enter it.

    Args:
        images: all of them.
        k: index of the threshold.
        iou_threshold: of that index.
    """

    def __init__(self, images: DetectedImages, k: int, iou_threshold: float) -> None:
        self.num_bins, self.iou_threshold = images.num_bins, iou_threshold
        counted = images.counted[k]
        score, iou = torch.from_numpy(images.score[counted]), torch.from_numpy(images.iou[k, counted])
        image, category, place = (
            torch.from_numpy(values[counted]).long() for values in (images.image, images.category, images.place)
        )
        num_categories, edges = images.num_categories, images.edges
        success = (iou > 0).double()
        cells, places = fine_bins(images.num_bins), GEOMETRY_BINS**4
        self.bins = CellSums(image, bin_index(score, cells, edges), cells, excess=success - score)
        self.localised = CellSums(
            image,
            category * LOCALISATION_BINS + bin_index(score, LOCALISATION_BINS, edges),
            num_categories * LOCALISATION_BINS,
            excess=iou - score,
        )
        self.places = CellSums(
            image,
            place + places * bin_index(score, GEOMETRY_BINS, edges),
            places * GEOMETRY_BINS,
            excess=success - score,
        )
        scores = dict(zip(SCORES, detection_scores(score, iou), strict=True))
        self.categories = CellSums(image, category, num_categories, laace=scores.pop("laace"))
        self.scores = CellSums(image, torch.zeros_like(image), 1, **scores)
        hit = iou > 0
        self.hits = CellSums(image[hit], category[hit], num_categories, iou=iou[hit])

    def metrics(self, weights: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Every metric (R,) by name, given the numbers of boxes `truth` (R, C)."""
        count = self.categories.drawn(weights)  # (R, C)
        total = count.sum(1)
        values = drawn_bin_metrics(self.bins, weights, self.num_bins)
        values |= {"d_ece": values["ece"], "d_ece_box": self.places.drawn(weights, "excess").abs().sum(1) / total}
        values |= {name: self.scores.drawn(weights, name).squeeze(1) / total for name in SCORES if name != "laace"}
        found, iou = self.hits.drawn(weights), self.hits.drawn(weights, "iou")
        values |= {"lrp": lrp(found, iou, count, truth, self.iou_threshold).nanmean(1)}
        return values | self.localisation(weights, count)

    def localisation(self, weights: Tensor, count: Tensor) -> dict[str, Tensor]:
        """Those that compare the score with the IoU, given the numbers of detections `count` (R, C)."""
        gaps = self.localised.drawn(weights, "excess").unflatten(1, (-1, LOCALISATION_BINS)).abs().sum(2)
        return {
            "laece": (gaps / count).nanmean(1),
            "laace": (self.categories.drawn(weights, "laace") / count).nanmean(1),
        }
