"""Oracles for the evaluation of detections: pycocotools, and slow, obvious definitions on top of what it matches."""

import contextlib
import copy
import io
import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from references import bin_by_loop, bins_by_loop, edge_values

Entries = list[dict[str, Any]]


def coco_evaluation(ground_truth: dict[str, Any], detections: Entries, iou_thresholds=None) -> COCOeval:
    """pycocotools' own evaluation of boxes; accumulated and summarized unless at thresholds other than COCO's."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        results = truth.loadRes(copy.deepcopy(detections))
        evaluation = COCOeval(truth, results, "bbox")
        if iou_thresholds is not None:
            evaluation.params.iouThrs = list(iou_thresholds)
        evaluation.evaluate()
        if iou_thresholds is None:
            evaluation.accumulate()
            evaluation.summarize()
    return evaluation


class Matched(NamedTuple):
    """A detection that counts: what it claims, and its IoU with the box it found, 0 for none."""

    score: float
    iou: float
    category: int
    geometry: tuple[float, ...]


def matched_by_coco(
    ground_truth: dict[str, Any], detections: Entries, iou_threshold: float, score_threshold: float
) -> list[Matched]:
    """The detections that enter calibration, in pycocotools' matching."""
    evaluation = coco_evaluation(ground_truth, detections, [iou_threshold])
    images = {image["id"]: image for image in ground_truth["images"]}
    categories = sorted(category["id"] for category in ground_truth["categories"])
    boxes = {annotation["id"]: annotation["bbox"] for annotation in ground_truth["annotations"]}
    found = []
    for entry in evaluation.evalImgs:
        if entry is None or entry["aRng"] != evaluation.params.areaRng[0]:
            continue
        for identity, partner, ignored in zip(entry["dtIds"], entry["dtMatches"][0], entry["dtIgnore"][0], strict=True):
            detection = evaluation.cocoDt.anns[identity]
            if ignored or detection["score"] < score_threshold:
                continue
            overlap = iou(detection["bbox"], boxes[int(partner)]) if partner else 0.0
            left, top, width, height = detection["bbox"]
            image = images[entry["image_id"]]
            across, down = image["width"], image["height"]
            geometry = ((left + width / 2) / across, (top + height / 2) / down, width / across, height / down)
            found.append(
                Matched(
                    detection["score"],
                    overlap,
                    categories.index(entry["category_id"]),
                    tuple(min(max(value, 0.0), 1.0) for value in geometry),
                )
            )
    return found


def iou(box: list[float], other: list[float]) -> float:
    """Of two boxes [left, top, width, height], neither a crowd."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    overlap = max(width, 0) * max(height, 0)
    return overlap / (box[2] * box[3] + other[2] * other[3] - overlap) if overlap else 0.0


def mean(values: list[Any]) -> Any:
    return sum(values) / len(values) if values else math.nan


def binned_error(scores: list[float], outcomes: list[float], num_bins: int) -> float:
    """Sum over bins of the share of detections in it times |mean outcome - mean score|."""
    score, outcome = (torch.tensor(values, dtype=torch.float64) for values in (scores, outcomes))
    bins = bins_by_loop(score, outcome, num_bins, "right")
    return float(sum((abs(b.success - b.confidence) for b in bins), Fraction(0)) / len(scores)) if scores else math.nan


def box_binned_error(matched: list[Matched], num_bins: int) -> float:
    """The same with cells of score x geometry, kept in a dict."""
    limits = edge_values(num_bins, torch.float64)
    cells: dict[tuple[int, ...], list[Matched]] = {}
    for item in matched:
        cell = tuple(bin_by_loop(value, limits, "right") for value in (item.score, *item.geometry))
        cells.setdefault(cell, []).append(item)
    gaps = [abs(sum((item.iou > 0) - item.score for item in cell)) for cell in cells.values()]
    return sum(gaps) / len(matched) if matched else math.nan


def detection_metrics(matched: list[Matched], num_ground_truth: list[int], iou_threshold: float) -> dict[str, float]:
    """Metrics over all categories by the book, with 15 bins of the score."""
    scores = [item.score for item in matched]
    hits = [float(item.iou > 0) for item in matched]
    laece, laace, lrp = [], [], []
    for category, boxes in enumerate(num_ground_truth):
        own = [item for item in matched if item.category == category]
        if own:
            laece.append(binned_error([item.score for item in own], [item.iou for item in own], 25))
            laace.append(mean([abs(item.score - item.iou) for item in own]))
        if own or boxes:
            found = [item.iou for item in own if item.iou > 0]
            false_alarms, missed = len(own) - len(found), boxes - len(found)
            misplaced = sum((1 - overlap) / (1 - iou_threshold) for overlap in found)
            lrp.append((misplaced + false_alarms + missed) / (len(found) + false_alarms + missed))
    return {
        "ece": binned_error(scores, hits, 15),
        "d_ece": binned_error(scores, hits, 15),
        "d_ece_box": box_binned_error(matched, 5),
        "nll_pred": mean([-math.log(score) for score in scores]),
        "nll": mean([-math.log(max(s if hit else 1 - s, 2**-24)) for s, hit in zip(scores, hits, strict=True)]),
        "brier": mean([(score - hit) ** 2 for score, hit in zip(scores, hits, strict=True)]),
        "laece": mean(laece),
        "laace": mean(laace),
        "lrp": mean(lrp),
        "n": len(matched),
        "classes": len(laece),
    }


def object_calibration_error(ground_truth: dict[str, Any], detections: Entries, score_threshold: float = 0.05) -> float:
    """OCE by its definition, box for box."""
    errors = []
    for threshold in (0.5, 0.75):
        for truth in ground_truth["annotations"]:
            near = [
                entry
                for entry in detections
                if entry["image_id"] == truth["image_id"]
                and entry["score"] >= score_threshold
                and iou(entry["bbox"], truth["bbox"]) >= threshold
            ]
            if truth["iscrowd"]:
                continue
            if not near:
                errors.append(1.0)
                continue
            told = [entry["category_id"] for entry in near]
            category = min(told, key=lambda name: (-told.count(name), name))
            p = sum(entry["score"] for entry in near) / len(near)
            errors.append(2 * (1 - p) ** 2 if category == truth["category_id"] else 2 * p**2)
    return mean(errors)


# What the property tests draw

IMAGES = [
    {"id": 11, "width": 640, "height": 480},
    {"id": 2, "width": 200, "height": 300},
    {"id": 5, "width": 90, "height": 70},
]
CATEGORIES = [{"id": 90, "name": "ninety"}, {"id": 3, "name": "three"}, {"id": 7, "name": "seven"}]

# A coarse grid, where overlaps tie and lie on thresholds; sides around the limits 32 and 96 of the area ranges.
_corner = st.integers(0, 4).map(lambda k: 16.0 * k)
_side = st.sampled_from([0.0, 16.0, 20.0, 32.0, 40.0, 64.0, 96.0, 100.0])
_free = st.floats(0, 100, allow_subnormal=False).map(lambda x: round(x, 3))
boxes = st.tuples(_corner, _corner, _side, _side).map(list) | st.tuples(_free, _free, _free, _free).map(list)
image_ids = st.sampled_from([image["id"] for image in IMAGES])
category_ids = st.sampled_from([category["id"] for category in CATEGORIES])
scores = st.sampled_from([0.04, 0.05, 0.2, 0.5, 0.9, 1.0]) | st.floats(0, 1).map(lambda x: round(x, 3))


@st.composite
def _annotation(draw) -> dict[str, Any]:
    box = draw(boxes)
    area = draw(st.sampled_from([box[2] * box[3], box[2] * box[3] * 0.7, 32.0**2, 96.0**2]))
    return {
        "image_id": draw(image_ids),
        "category_id": draw(category_ids),
        "bbox": box,
        "area": area,
        "iscrowd": draw(st.sampled_from([0, 0, 0, 1])),
        "ignore": draw(st.sampled_from([0, 1])),  # which pycocotools does not heed
    }


@st.composite
def ground_truths(draw, max_size: int = 12) -> dict[str, Any]:
    """COCO ground truth with crowds, images and categories without boxes, and ids in no order."""
    annotations = draw(st.lists(_annotation(), max_size=max_size))
    for k, annotation in enumerate(annotations):
        annotation["id"] = 100 - k
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations}


@st.composite
def cases(draw) -> tuple[dict[str, Any], Entries]:
    """Ground truth, and at least one detection: pycocotools fails without. Many detections are near a true box."""
    ground_truth = draw(ground_truths())
    annotations = ground_truth["annotations"]
    shift = st.sampled_from([0.0, 0.0, 4.0, 16.0])
    detections = []
    for _ in range(draw(st.integers(1, 25))):
        detection = {"image_id": draw(image_ids), "category_id": draw(category_ids), "bbox": draw(boxes)}
        if annotations and draw(st.booleans()):
            near = draw(st.sampled_from(annotations))
            left, top, width, height = near["bbox"]
            detection = {"image_id": near["image_id"], "category_id": near["category_id"]}
            detection["bbox"] = [left + draw(shift), top, width, height + draw(shift)]
        detections.append(detection | {"score": draw(scores)})
    return ground_truth, detections


# What other codes were run on once, to record what they return


def drawn_case(seed: int, federated: bool = False) -> tuple[dict[str, Any], Entries]:
    """Ground truth and detections from a generator that NumPy keeps as it is.

    Boxes are on a grid, so that overlaps tie; scores are hundredths, on edges of bins. Category 1 has one box, which is
    found without any error; category 5 has none. Where `federated`, images list categories as LVIS does, detections
    have scores of their own, and one image has more than 300.
    """
    random = np.random.RandomState(seed)
    images = [{"id": k, "width": 200, "height": 200} for k in range(1, 9)]
    categories = [{"id": k, "name": f"category {k}"} for k in range(1, 6)]

    def box() -> list[float]:
        return [*(8.0 * random.randint(0, 12, 2)), *(8.0 * random.randint(1, 14, 2))]

    def entry(box: list[float], image: int, category: int) -> dict[str, Any]:
        return {"image_id": image, "category_id": category, "bbox": [float(value) for value in box]}

    annotations = [entry([0, 0, 50, 50], 1, 1)]
    annotations += [entry(box(), random.randint(1, 9), random.randint(2, 5)) for _ in range(40)]
    for k, annotation in enumerate(annotations):
        _, _, width, height = annotation["bbox"]
        crowd = 0 if federated or k == 0 else int(random.rand() < 0.15)
        annotation |= {"id": k + 1, "area": width * height, "iscrowd": crowd}
    detections = [entry([0, 0, 50, 50], 1, 1) | {"score": 1.0}]
    for k in range(700 if federated else 120):
        near = annotations[random.randint(1, len(annotations))]
        left, top, width, height = near["bbox"]
        found = entry([left + 4 * random.randint(0, 4), top, width, height + 4], near["image_id"], near["category_id"])
        if random.rand() < 0.5:
            found = entry(box(), 3 if federated else random.randint(1, 9), random.randint(2, 6))
        score = random.randint(0, 101) / 100
        detections.append(found | {"score": (k + score) / 701 if federated else score})
    if federated:
        for image in images:
            negative, incomplete = (random.choice([2, 3, 4, 5], 2, replace=False).tolist() for _ in range(2))
            image |= {"neg_category_ids": negative, "not_exhaustive_category_ids": incomplete[:1]}
        for category, frequency in zip(categories, "rcfcf", strict=True):
            category["frequency"] = frequency
    return {"images": images, "categories": categories, "annotations": annotations}, detections
