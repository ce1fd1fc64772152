"""Matching: pycocotools' rule, on random sets and on cases drawn by hand."""

import numpy as np
import pytest
from hypothesis import given
from references_detection import cases, coco_evaluation

from uncertainty_core.detection import matching, read_detections, read_ground_truth
from uncertainty_core.detection.average_precision import IOU_THRESHOLDS

# (left, top, width, height); IoU of two boxes of the same height, one above the other: overlap / union of the widths
TRUTH = [0, 0, 100, 100]


def ground_truth(*boxes, crowd=(), first_id=1, area=None):
    """One image, one category; the boxes whose numbers are in `crowd` are crowds."""
    annotations = [
        {"id": k + first_id, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": int(k in crowd)}
        | {"area": box[2] * box[3] if area is None else area}
        for k, box in enumerate(boxes)
    ]
    images = [{"id": 1, "width": 1000, "height": 1000}]
    return {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": annotations}


def detections(*scored_boxes):
    return [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for score, box in scored_boxes]


def takes_part(truth, found):
    return matching.rank_in_group(found.group(truth.num_categories)) < matching.MAX_DETECTIONS


def matched(truth, found, iou_thresholds=(0.5,), area_range="all", disjoint=False):
    """Partner and outcome (T, D), detections in the order of falling scores."""
    truth = read_ground_truth(truth)
    found = read_detections(found, truth)
    ignored = truth.crowd | matching.outside(truth.area, matching.AREA_RANGES[area_range])
    pairs = matching.candidate_pairs(truth, found, takes_part(truth, found), disjoint)
    partner = matching.match(pairs, len(found), truth.crowd, ignored, iou_thresholds)
    area = found.box[:, 2] * found.box[:, 3]
    out_of_range = matching.outside(area, matching.AREA_RANGES[area_range])
    return partner.tolist(), matching.outcome(partner, ignored, out_of_range).tolist()


FP, TP, IGNORED = matching.FALSE_POSITIVE, matching.TRUE_POSITIVE, matching.IGNORED


@given(cases())
def test_as_pycocotools_on_random_sets(case):
    truth = read_ground_truth(case[0])
    found = read_detections(case[1], truth)
    pairs = matching.candidate_pairs(truth, found, takes_part(truth, found))
    area = found.box[:, 2] * found.box[:, 3]
    thresholds = [0.05, 0.3, *IOU_THRESHOLDS]
    evaluation = coco_evaluation(*case, thresholds)
    # pycocotools knows boxes by their ids, here they have numbers
    identity = {(a["image_id"], a["category_id"]): [] for a in case[0]["annotations"]}
    for annotation in case[0]["annotations"]:
        identity[annotation["image_id"], annotation["category_id"]].append(annotation["id"])

    seen = 0
    for limits in matching.AREA_RANGES.values():
        ignored = truth.crowd | matching.outside(truth.area, limits)
        partner = matching.match(pairs, len(found), truth.crowd, ignored, thresholds)
        outcome = matching.outcome(partner, ignored, matching.outside(area, limits))
        for theirs in evaluation.evalImgs:
            if theirs is None or tuple(theirs["aRng"]) != limits:
                continue
            i, c = truth.image_ids.index(theirs["image_id"]), truth.category_ids.index(theirs["category_id"])
            ours = (found.image == i) & (found.category == c)
            seen += ours.sum()
            assert found.score[ours].tolist() == theirs["dtScores"]
            expected = np.where(theirs["dtIgnore"], IGNORED, np.where(theirs["dtMatches"] > 0, TP, FP))
            assert outcome[:, ours].tolist() == expected.tolist()
            first = np.searchsorted(truth.group, i * truth.num_categories + c)
            ids = identity.get((theirs["image_id"], theirs["category_id"]))
            partner_id = [[ids[k - first] if k >= 0 else 0 for k in row] for row in partner[:, ours]]
            assert partner_id == theirs["dtMatches"].tolist()
    assert seen == len(matching.AREA_RANGES) * len(found)


def test_the_better_score_chooses_first():
    # Both overlap the box by 0.5 or more: 80/100 = 0.8 and 100/100 = 1. The first to choose is the one scored 0.9,
    # though it fits worse; nothing is left for the other.
    assert matched(ground_truth(TRUTH), detections((0.6, TRUTH), (0.9, [0, 0, 80, 100]))) == ([[0, -1]], [[TP, FP]])


def test_of_equal_scores_the_first_in_the_file_chooses():
    # 0.8 and 1.0 again; at equal scores the order of the file decides, so that the worse fit takes the box.
    assert matched(ground_truth(TRUTH), detections((0.9, [0, 0, 80, 100]), (0.9, TRUTH)))[1] == [[TP, FP]]


def test_each_takes_the_best_that_is_left():
    # Boxes A = [0, 100] and B = [20, 120] across. First detection [0, 100]: IoU 1 with A, 80/120 with B: takes A.
    # Second, [0, 100] too: A is gone, 80/120 = 0.67 >= 0.5: takes B. Third: nothing is left.
    truth = ground_truth(TRUTH, [20, 0, 100, 100])
    assert matched(truth, detections((0.9, TRUTH), (0.8, TRUTH), (0.7, TRUTH))) == ([[0, 1, -1]], [[TP, TP, FP]])


def test_of_equal_overlaps_the_last_box_is_taken():
    # [10, 110] overlaps [0, 100] and [20, 120] by 90/110 each: the later annotation wins.
    truth = ground_truth(TRUTH, [20, 0, 100, 100])
    assert matched(truth, detections((0.9, [10, 0, 100, 100])))[0] == [[1]]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, TP), (0.51, FP)])
def test_an_iou_on_the_threshold_is_enough(threshold, expected):
    # half of the box: 50/100 = 0.5 exactly
    assert matched(ground_truth(TRUTH), detections((0.9, [0, 0, 50, 100])), [threshold])[1] == [[expected]]


def test_a_crowd_takes_any_number_and_counts_for_none():
    # All three lie inside the crowd: the covered share of each is 1, though its IoU is 0.01 or 0.04.
    found = detections((0.9, [0, 0, 10, 10]), (0.8, [0, 0, 20, 20]), (0.7, [90, 90, 10, 10]))
    assert matched(ground_truth(TRUTH, crowd=[0]), found) == ([[0, 0, 0]], [[IGNORED] * 3])


def test_a_crowd_is_taken_only_for_want_of_others():
    # [0, 100] fits the crowd [0, 200] with share 1, the box [0, 60] with 60/100 only: takes the box all the same.
    # The second finds the box taken, and falls into the crowd.
    truth = ground_truth([0, 0, 200, 100], [0, 0, 60, 100], crowd=[0])
    assert matched(truth, detections((0.9, TRUTH), (0.8, TRUTH))) == ([[1, 0]], [[TP, IGNORED]])


def test_area_ranges_ignore_boxes_and_unmatched_detections_outside():
    # The box has 100² > 96²: large. As "small" it is to be ignored, and so is what matches it; of the unmatched the
    # 10 x 10 one is small and a false positive, the 200 x 200 one is to be ignored.
    found = detections((0.9, TRUTH), (0.8, [500, 500, 10, 10]), (0.7, [500, 500, 200, 200]))
    assert matched(ground_truth(TRUTH), found, area_range="large")[1] == [[TP, IGNORED, FP]]
    assert matched(ground_truth(TRUTH), found, area_range="small")[1] == [[IGNORED, FP, IGNORED]]


def test_area_is_that_of_the_annotation_not_of_its_box():
    # pycocotools: the area of the mask decides, here 30² < 32² in a box of 100²
    assert matched(ground_truth(TRUTH, area=900), detections((0.9, TRUTH)), area_range="small")[1] == [[TP]]


def test_detections_of_other_images_and_classes_find_nothing():
    truth = ground_truth(TRUTH)
    truth["images"].append({"id": 2, "width": 1000, "height": 1000})
    truth["categories"].append({"id": 7, "name": "other"})
    elsewhere = [
        {"image_id": 2, "category_id": 1, "bbox": TRUTH, "score": 0.9},
        {"image_id": 1, "category_id": 7, "bbox": TRUTH, "score": 0.9},
    ]
    assert matched(truth, elsewhere) == ([[-1, -1]], [[FP, FP]])


def test_only_the_hundred_best_take_part():
    # 100 detections far off, and one that fits but is scored lowest
    found = detections(*[(0.9, [500, 500, 10, 10])] * 100, (0.1, TRUTH))
    assert matched(ground_truth(TRUTH), found)[0] == [[-1] * 101]
    assert matched(ground_truth(TRUTH), found[1:])[0] == [[-1] * 99 + [0]]


def test_zero_overlap_never_matches_differs_from_pycocotools():
    """At threshold 0 pycocotools gives the box to the first detection anywhere, here to one that misses it altogether.

    The detection that fits then counts as a false positive: (TP, FP) instead of (FP, TP). Its matching serves LaECE0 in
    fiveai/detection_calibration.
    """
    truth, found = ground_truth(TRUTH), detections((0.9, [500, 500, 10, 10]), (0.8, TRUTH))
    assert matched(truth, found, [0.0]) == ([[-1, 0]], [[FP, TP]])
    theirs = coco_evaluation(truth, found, [0.0]).evalImgs[0]
    assert theirs["dtMatches"].tolist() == [[1, 0]]
    assert matched(truth, found, [0.0], disjoint=True) == ([[0, -1]], [[TP, FP]])


def test_annotation_id_zero_differs_from_pycocotools():
    """pycocotools marks "unmatched" by the id 0, so that what matches the annotation 0 is a false positive there."""
    truth, found = ground_truth(TRUTH, first_id=0), detections((0.9, TRUTH))
    assert matched(truth, found)[1] == [[TP]]
    theirs = coco_evaluation(truth, found)
    assert theirs.evalImgs[0]["dtMatches"].tolist() == [[0]] * 10
    assert theirs.stats[0] == 0


def test_zero_area_boxes_overlap_nothing():
    # 0/0 in the formula of the IoU
    point = [10, 10, 0, 0]
    assert matched(ground_truth(point), detections((0.9, point), (0.8, TRUTH)))[1] == [[FP, FP]]


def test_nothing_detected_and_nothing_to_find():
    assert matched(ground_truth(TRUTH), [], (0.5, 0.7)) == ([[], []], [[], []])
    assert matched(ground_truth(), detections((0.9, TRUTH)))[1] == [[FP]]


def test_blocks_of_pairs_do_not_change_them(monkeypatch):
    truth = ground_truth(*([5.0 * k, 0, 100, 100] for k in range(9)))
    found = detections(*((0.9 - 0.01 * k, [7.0 * k, 0, 90, 100]) for k in range(12)), (0.1, [800, 0, 10, 10]))
    whole = matched(truth, found, IOU_THRESHOLDS)
    for size in (1, 4, 10):
        monkeypatch.setattr(matching, "_BLOCK", size)
        assert matched(truth, found, IOU_THRESHOLDS) == whole
