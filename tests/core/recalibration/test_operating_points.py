"""Thresholds of least LRP and the protocol of Kuzucu et al.: by hand, by search, and as fiveai's code has it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from references_detection import drawn_case

from uncertainty_core.detection import read_detections, read_ground_truth
from uncertainty_core.recalibration import (
    OperatingPoints,
    Recipe,
    Temperature,
    fit_operating_points,
    kuzucu,
    lrp_optimal_thresholds,
)

# Of `drawn_case(seed)` for validation and `drawn_case(seed + 10)` for the test, each sorted by falling score, what
# fiveai/detection_calibration returned at commit bf59c92; null is no threshold.
RECORDED = json.loads((Path(__file__).parent / "fiveai.json").read_text())


def case(seed):
    truth, found = drawn_case(seed)
    truth = read_ground_truth(truth)
    return truth, read_detections(sorted(found, key=lambda entry: -entry["score"]), truth)


@pytest.mark.filterwarnings("ignore:laece is NaN")
@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: f"{r['method']}-{r['seed']}-{r['iou_threshold']}")
def test_as_recorded(recorded):
    t = recorded["iou_threshold"]
    recipe = Recipe(recorded["method"], class_wise=True, target="iou")
    points = fit_operating_points(*case(recorded["seed"]), recipe, t, protocol="fiveai")
    for ours, theirs in zip((points.before, points.after), recorded["thresholds"], strict=True):
        assert ours == pytest.approx([limit or 0 for limit in theirs], rel=0, abs=1e-12)
    truth, found = case(recorded["seed"] + 10)
    score, category = torch.from_numpy(found.score), torch.from_numpy(found.category)
    kept = points.keeps(score, category)
    assert kept.sum() == recorded["kept"]
    assert points(score, category)[kept].mean().item() == pytest.approx(recorded["mean_score"], rel=1e-12)
    metrics = kuzucu(points, truth, found, t, protocol="fiveai")
    for name in ("laece", "laace", "lrp"):
        assert metrics[name] == pytest.approx(recorded[name], rel=0, abs=1e-12)


def thresholds(rows, num_ground_truth=(2,), t=0.5, **options):
    """Of one category, from (score, outcome, IoU)."""
    score, outcome, iou = (np.array(column) for column in zip(*rows, strict=True))
    return lrp_optimal_thresholds(
        score, outcome, iou, np.zeros(len(score), int), np.array(num_ground_truth), t, **options
    )


MISS, HIT, IGNORED = 0, 1, 2


def test_thresholds_by_hand():
    # Two boxes, t = 1/2. A hit with IoU 1: LRP = (0 + 1 missed) / 2; with a miss too: (1 + 1) / 3; with a hit of
    # IoU 3/4: (0.5 + 1) / 3 = 1/2. The first of equals is taken.
    rows = [(0.9, HIT, 1.0), (0.8, MISS, 0.0), (0.7, HIT, 0.75)]
    assert thresholds(rows) == [0.9]
    rows[2] = (0.7, HIT, 0.8)  # (0.4 + 1) / 3
    assert thresholds(rows) == [0.7]
    # where nothing hits, or nothing is there, nothing is cut off
    assert thresholds([(0.9, MISS, 0.0)]) == [0.0]
    assert thresholds([(0.9, IGNORED, 0.0)]) == [0.0]
    assert lrp_optimal_thresholds(*(np.zeros(0, kind) for kind in (float, int, float, int)), np.array([3]), 0.5) == [0]


def test_equal_scores_are_kept_or_dropped_together():
    # 0.5 brings a hit and then three misses: (0 + 3 + 1) / 5 against 1/2 without them
    rows = [(0.9, HIT, 1.0), (0.5, HIT, 1.0), *[(0.5, MISS, 0.0)] * 3]
    assert thresholds(rows) == [0.9]
    # fiveai looks between them, finds LRP 0 behind the second hit, and then takes all that score 0.5
    assert thresholds(rows, protocol="fiveai") == [0.5]


@pytest.mark.parametrize("seed", range(3))
def test_no_other_threshold_has_less_lrp(seed):
    random = np.random.RandomState(seed)
    score, outcome, iou = random.randint(0, 20, 30) / 20, random.randint(0, 3, 30), random.uniform(0.5, 1, 30)
    boxes = int((outcome == HIT).sum()) + 3

    def lrp(limit):
        at = score >= limit
        hits, misses = ((at & (outcome == kind)).sum() for kind in (HIT, MISS))
        return ((1 - iou[at & (outcome == HIT)]).sum() / 0.5 + misses + boxes - hits) / (misses + boxes)

    best = thresholds(list(zip(score, outcome, iou, strict=True)), (boxes,))[0]
    assert lrp(best) == pytest.approx(min(map(lrp, score)))


def test_points_keep_by_scores_before_and_after():
    # 0.9 becomes 3/4 with T = 2, 0.8 becomes 2/3 and 0.5 stays
    points = OperatingPoints(Temperature(2.0), (0.85, 0.0), (0.0, 0.7))
    score, category = torch.tensor([0.9, 0.8, 0.9, 0.8]), torch.tensor([0, 0, 1, 1])
    assert points.keeps(score, category).tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match="a threshold of each class"):
        OperatingPoints(Temperature(2.0), (0.85, 0.0), (0.7,))


def test_recipes_go_by_their_names():
    for name in ("temperature", "class-wise-isotonic-iou", "class-wise-platt", "linear-iou"):
        assert Recipe.parse(name).name == name
    assert Recipe.parse("class-wise-isotonic-iou") == Recipe("isotonic", class_wise=True, target="iou")
    with pytest.raises(ValueError, match="there is no calibrator of scores 'spline'; known are temperature, platt"):
        Recipe.parse("spline-iou")
    with pytest.raises(ValueError, match="the target must be hit or iou, got 'box'"):
        Recipe(target="box")
