"""AP and AR: pycocotools' twelve numbers, and those of each category."""

import numpy as np
import pytest
from hypothesis import given
from references_detection import CATEGORIES, IMAGES, cases, coco_evaluation, ground_truths

from uncertainty_core.detection import Settings, match_images, read_detections, read_ground_truth
from uncertainty_core.detection.average_precision import per_category, precision_recall, summarize
from uncertainty_core.detection.evaluation import precision_recall_by_area
from uncertainty_core.detection.matching import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def precision(ground_truth, detections):
    """COCO's numbers, and those of each category, without any calibration."""
    ground_truth = read_ground_truth(ground_truth)
    matched = match_images(ground_truth, read_detections(detections, ground_truth), Settings())
    of_area = precision_recall_by_area(ground_truth, matched)
    return summarize(of_area), per_category(of_area["all"])


@given(cases())
def test_as_pycocotools_on_random_sets(case):
    summary, of_category = precision(*case)
    theirs = coco_evaluation(*case)
    assert list(summary) == NAMES
    expected = np.where(theirs.stats == -1, np.nan, 100 * theirs.stats)
    np.testing.assert_allclose(list(summary.values()), expected, rtol=0, atol=1e-9)

    of_all = {
        "AP": theirs.eval["precision"][:, :, :, 0, -1].mean((0, 1)),
        "AR100": theirs.eval["recall"][:, :, 0, -1].mean(0),
    }
    for name, values in of_all.items():
        expected = np.where(values == -1, np.nan, 100 * values)
        np.testing.assert_allclose(of_category[name], expected, rtol=0, atol=1e-9)


@given(ground_truths(max_size=8))
def test_ground_truth_as_detections_is_perfect(ground_truth):
    # but for boxes without area, which overlap nothing
    boxes = [a for a in ground_truth["annotations"] if a["bbox"][2] * a["bbox"][3]]
    ground_truth = ground_truth | {"annotations": boxes}
    # the 10 best of a class in an image count for AR10, the best alone for AR1: these need not be 100
    perfect, _ = precision(ground_truth, [annotation | {"score": 0.9} for annotation in boxes])
    for name in set(NAMES) - {"AR1"}:
        assert perfect[name] == 100 or np.isnan(perfect[name])
    counted = [not annotation["iscrowd"] for annotation in boxes]
    assert np.isnan(perfect["AP"]) != any(counted)


def test_precision_by_hand():
    # One category with 4 boxes, detections in the order of their scores: TP, ignored, FP, TP.
    # The first TP has precision 1/1 at recall 1/4, the second 2/3 (the ignored one does not count) at recall 2/4.
    # Of the 101 recalls 0, 0.01, ..., 26 are at most 1/4: precision 1. 25 more are at most 1/2: 2/3. 50 more: 0.
    outcome = np.array([[TRUE_POSITIVE, IGNORED, FALSE_POSITIVE, TRUE_POSITIVE]], dtype=np.uint8)
    result = precision_recall(outcome, np.arange(4), np.zeros(4, np.int64), np.array([0, 1, 0, 1]), np.array([4]))
    assert result.precision == pytest.approx(np.array([[(26 + 25 * 2 / 3) / 101]]))
    # the second TP is second in its image
    assert result.recall[:, 0, 0].tolist() == [0.25, 0.5, 0.5]


def test_precision_never_rises_with_recall():
    # FP, TP, TP of 2 boxes: precision 1/2 at recall 1/2, 2/3 at recall 1; the better one counts at both.
    outcome = np.array([[FALSE_POSITIVE, TRUE_POSITIVE, TRUE_POSITIVE]], dtype=np.uint8)
    zeros = np.zeros(3, np.int64)
    result = precision_recall(outcome, np.arange(3), zeros, np.arange(3), np.array([2]))
    assert result.precision == pytest.approx(np.array([[2 / 3]]))


def test_a_category_without_ground_truth_is_left_out():
    box = {"bbox": [0, 0, 50, 50], "image_id": IMAGES[0]["id"]}
    annotations = [{"id": 1, "category_id": 3, "area": 2500, "iscrowd": 0, **box}]
    ground_truth = {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations}
    detections = [{"category_id": category, "score": 0.9, **box} for category in (3, 7)]
    summary, of_category = precision(ground_truth, detections)
    # the false positive of category 7 costs nothing
    assert summary["AP"] == 100
    assert of_category["AP"] == pytest.approx([100, np.nan, np.nan], nan_ok=True)


def test_no_detections_and_no_ground_truth():
    annotation = {"id": 1, "category_id": 3, "area": 2500, "iscrowd": 0, "bbox": [0, 0, 50, 50], "image_id": 2}
    ground_truth = {"images": IMAGES, "categories": CATEGORIES, "annotations": [annotation]}
    missed, _ = precision(ground_truth, [])
    assert missed["AP"] == missed["AR100"] == 0
    assert np.isnan(missed["APs"])
    for annotations in ([], [annotation | {"iscrowd": 1}]):
        nothing, _ = precision(ground_truth | {"annotations": annotations}, [])
        assert np.isnan(list(nothing.values())).all()
