"""Which detection finds which ground-truth box: the greedy rule of pycocotools' COCOeval, vectorised.

Shapes: D detections, G ground-truth boxes, P pairs of overlapping boxes, T IoU thresholds.

In each image and category the detections choose in the order of their scores. Each takes, of the boxes that overlap it
by at least the threshold and that nobody took, the one of highest IoU; of equals the last. Boxes to be ignored (crowds,
and those outside of the area range) are taken only for want of others, and a crowd can be taken any number of times.

Two things are done otherwise than by pycocotools: boxes that do not overlap at all never match (there, at threshold 0,
they do, and rob the next detection), and an annotation may have the id 0 (there, what matches it counts as unmatched).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .coco_format import Detections, GroundTruth

MAX_DETECTIONS = 100  # the best of each image and category, in COCO
AREA_RANGES = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}

OBJECT_THRESHOLDS = (0.5, 0.75)  # from which IoU on a detection tells of a box

OUTCOMES = FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, 2

# Pairs of boxes looked at in one go: enough to amortise the calls, few enough for little memory.
_BLOCK = 2**18


@dataclass(frozen=True, eq=False)
class Pairs:
    """Boxes of the same image and category that may match, in the order of detection, IoU, ground truth.

    detection, ground_truth: indices (P,); iou (P,), float64.
    turn: how many detections of the image and category that may match anything come before this one (P,).
    """

    detection: np.ndarray
    ground_truth: np.ndarray
    iou: np.ndarray
    turn: np.ndarray


def box_iou(box: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU (P,) of boxes (P, 4) with others (P, 4); with a crowd, the covered share of the first box.

    Operation for operation as pycocotools does it, so that an IoU on a threshold stays there.
    """
    left, top, width, height = box.T
    truth_left, truth_top, truth_width, truth_height = truth.T
    overlap_width = np.minimum(width + left, truth_width + truth_left) - np.maximum(left, truth_left)
    overlap_height = np.minimum(height + top, truth_height + truth_top) - np.maximum(top, truth_top)
    overlap = np.maximum(overlap_width, 0) * np.maximum(overlap_height, 0)
    area = width * height
    union = np.where(crowd, area, area + truth_width * truth_height - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def rank_in_group(group: np.ndarray) -> np.ndarray:
    """How many before each element are of the same `group` (N,), which is sorted."""
    return np.arange(len(group)) - np.searchsorted(group, group, side="left")


def candidate_pairs(
    ground_truth: GroundTruth, detections: Detections, eligible: np.ndarray, disjoint: bool = False
) -> Pairs:
    """All pairs of boxes of the same image and category that have a common area.

    Args:
        ground_truth, detections: the boxes.
        eligible: detections that take part (D,).
        disjoint: pairs without a common area, too.
    """
    group = detections.group(ground_truth.num_categories)
    start = np.searchsorted(ground_truth.group, group, side="left")
    count = np.searchsorted(ground_truth.group, group, side="right") - start
    count[~eligible] = 0
    none = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    blocks = zip(none, *_blocks(ground_truth, detections, start, count, disjoint), strict=True)
    detection, truth, iou = (np.concatenate(columns) for columns in blocks)
    in_order = np.lexsort((truth, iou, detection))
    detection, truth, iou = detection[in_order], truth[in_order], iou[in_order]
    distinct, position = np.unique(detection, return_inverse=True)
    return Pairs(detection, truth, iou, rank_in_group(group[distinct])[position])


def object_errors(
    ground_truth: GroundTruth,
    detections: Detections,
    counted: np.ndarray,
    iou_thresholds: Sequence[float] = OBJECT_THRESHOLDS,
) -> np.ndarray:
    """How wrong is what detections of any category tell of each box: float64 (G,) in [0, 2] (Park et al. 2024).

    Of the detections whose IoU with the box is high enough p is the mean score, and their category is the most frequent
    one, of equally frequent ones the first. The error is 2 (1 - p)² where it is the box's, 2 p² where it is another, 1
    without any detection; the result is the mean over `iou_thresholds`.

    Args:
        ground_truth, detections: the boxes.
        counted: detections that take part (D,), bool.
        iou_thresholds: to average over.
    """
    anything = (replace(boxes, category=np.zeros_like(boxes.category)) for boxes in (ground_truth, detections))
    pairs = candidate_pairs(*anything, counted)
    num_boxes, num_categories = len(ground_truth.box), ground_truth.num_categories
    errors = np.zeros((len(iou_thresholds), num_boxes))
    for at, threshold in enumerate(iou_thresholds):
        near = pairs.iou >= threshold
        box, detection = pairs.ground_truth[near], pairs.detection[near]
        count = np.bincount(box, minlength=num_boxes)
        score = np.bincount(box, detections.score[detection], minlength=num_boxes) / np.maximum(count, 1)
        vote, votes = np.unique(box * num_categories + detections.category[detection], return_counts=True)
        voter, choice = np.divmod(vote, num_categories)
        most_first = np.lexsort((-votes, voter))
        voted, first = np.unique(voter[most_first], return_index=True)
        right = np.zeros(num_boxes, bool)
        right[voted] = choice[most_first][first] == ground_truth.category[voted]
        errors[at] = np.where(count > 0, 2 * np.where(right, 1 - score, score) ** 2, 1)
    return errors.mean(0)


def _blocks(
    ground_truth: GroundTruth, detections: Detections, start: np.ndarray, count: np.ndarray, disjoint: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Columns of `Pairs` but the last, of as many detections at a time as have about _BLOCK candidates."""
    before = np.cumsum(count) - count
    total = count.sum()
    cuts = np.searchsorted(before + count, np.arange(0, total, _BLOCK), side="right")
    for first, last in pairwise([*cuts, len(count)]):
        block = slice(first, last)
        detection = np.repeat(np.arange(first, last), count[block])
        truth = np.arange(len(detection)) + np.repeat(start[block] - before[block] + before[first], count[block])
        iou = box_iou(detections.box[detection], ground_truth.box[truth], ground_truth.crowd[truth])
        found = (iou > 0) | disjoint
        yield detection[found], truth[found], iou[found]


def match(
    pairs: Pairs, num_detections: int, crowd: np.ndarray, ignored: np.ndarray, iou_thresholds: Sequence[float]
) -> np.ndarray:
    """The box that each detection takes at each threshold: int32 (T, D), -1 for none.

    Args:
        pairs: boxes that may match.
        num_detections: D.
        crowd: boxes that any number of detections may take (G,).
        ignored: boxes that are taken only for want of others (G,).
        iou_thresholds: T numbers.
    """
    threshold = np.minimum(np.asarray(iou_thresholds, dtype=np.float64), 1 - 1e-10)[:, None]
    partner = np.full((len(threshold), num_detections), -1, dtype=np.int32)
    taken = np.zeros((len(threshold), len(crowd)), dtype=bool)
    # no box is of two groups, so that the detections whose turn it is, one of each group, choose at once
    by_turn = np.argsort(pairs.turn, kind="stable")
    turns = np.searchsorted(pairs.turn[by_turn], np.arange(pairs.turn.max(initial=-1) + 2))
    for first, last in pairwise(turns):
        now = by_turn[first:last]
        detection, truth = pairs.detection[now], pairs.ground_truth[now]
        # a detection's pairs ascend in preference, but all that are not ignored come before all that are
        preference = np.arange(len(now)) + len(now) * ~ignored[truth]
        free = (pairs.iou[now] >= threshold) & ~taken[:, truth]
        starts = np.flatnonzero(np.diff(detection, prepend=-1))
        best = np.maximum.reduceat(np.where(free, preference, -1), starts, axis=1)
        at, chooser = np.nonzero(best >= 0)
        chosen = truth[best[at, chooser] % len(now)]
        partner[at, detection[starts[chooser]]] = chosen
        taken[at, chosen] = ~crowd[chosen]
    return partner


def outside(area: np.ndarray, area_range: tuple[float, float]) -> np.ndarray:
    """Whether each `area` lies outside of the range, whose ends belong to it."""
    return (area < area_range[0]) | (area > area_range[1])


def outcome(partner: np.ndarray, ignored: np.ndarray, forgiven: np.ndarray) -> np.ndarray:
    """FALSE_POSITIVE, TRUE_POSITIVE or IGNORED, uint8 (T, D).

    Args:
        partner: what `match` gave (T, D).
        ignored: boxes to ignore (G,).
        forgiven: detections to ignore if they find nothing (D,).
    """
    # one more entry, which is where partner -1 looks
    of_partner = np.append(np.where(ignored, IGNORED, TRUE_POSITIVE), FALSE_POSITIVE).astype(np.uint8)
    result = of_partner[partner]
    result[(partner < 0) & forgiven] = IGNORED
    return result
