"""The protocol "fiveai": what fiveai/detection_calibration returned for the same data, and a case by hand."""

import numpy as np
import pytest
from references_detection import CATEGORIES, IMAGES, drawn_case

from uncertainty_core.detection import Settings, evaluate, match_images, read_detections, read_ground_truth, tables

# Of `drawn_case(seed)`, by commit bf59c92: LaECE and LaACE at the IoU thresholds 0 and 0.5, without a score threshold.
RECORDED = {
    0: (0.4395744577127445, 0.42654058065302397, 0.37515285609057236, 0.43250323724452894),
    1: (0.3720990985073258, 0.4053921276535933, 0.37987646995477914, 0.4286993363579412),
    2: (0.4113044284930925, 0.41675080813480214, 0.4110963729238631, 0.45186430980223746),
}


def evaluated(truth, found, **settings):
    settings = Settings((0.5,), **settings)
    truth = read_ground_truth(truth)
    return evaluate(truth, match_images(truth, read_detections(found, truth), settings), settings)


def errors(evaluation):
    """LaECE and LaACE at 0 and at 0.5."""
    any_overlap, half = evaluation.any_overlap.metrics, evaluation.calibration[0].metrics
    return any_overlap["laece0"], any_overlap["laace0"], half["laece"], half["laace"]


@pytest.mark.parametrize("seed", RECORDED)
def test_as_recorded(seed):
    case = drawn_case(seed)
    theirs = evaluated(*case, score_threshold=0, protocol="fiveai")
    assert errors(theirs) == pytest.approx(RECORDED[seed], rel=0, abs=1e-14)
    # the protocol decides nothing else
    ours = evaluated(*case, score_threshold=0)
    if seed == 0:  # docs/metrics.md
        assert errors(ours)[:2] == pytest.approx((0.3230, 0.3374), abs=5e-5)
    assert theirs.precision == pytest.approx(ours.precision, nan_ok=True)
    for name in ("ece", "nll", "brier", "lrp"):
        assert theirs.calibration[0].metrics[name] == ours.calibration[0].metrics[name]


def test_by_hand():
    # Category 3: a box, and a crowd elsewhere. 0.8 lies in the crowd, overlaps the box nowhere, and chooses first: at
    # t = 0 it takes the box all the same, with IoU 0. 0.6, which fits the box with IoU 0.6, finds only the crowd and
    # is ignored. LaECE 0.8, LaACE (0.8 + 0.6) / 2. At t = 0.5 it is the other way round: LaECE 0 (left out), and
    # LaACE (0.8 + 0) / 2.
    # Category 7: found with IoU 0.5 and score 0.5: an error of 0 is left out. Category 90: no boxes, left out.
    box, crowd = [0, 0, 100, 100], [200, 0, 100, 100]
    entries = [(3, box, 0), (3, crowd, 1), (7, box, 0)]
    annotations = [
        {"id": k, "image_id": 11, "category_id": category, "bbox": bbox, "area": 10_000, "iscrowd": iscrowd}
        for k, (category, bbox, iscrowd) in enumerate(entries, start=1)
    ]
    found = [
        {"image_id": 11, "category_id": category, "bbox": bbox, "score": score}
        for category, bbox, score in (
            (3, [220, 20, 10, 10], 0.8),
            (3, [0, 0, 60, 100], 0.6),
            (7, [0, 0, 50, 100], 0.5),
            (90, box, 0.9),
        )
    ]
    truth = {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations}
    with np.errstate(all="raise"), pytest.warns(RuntimeWarning, match="laece is NaN"):
        theirs = evaluated(truth, found, protocol="fiveai")
    assert errors(theirs) == pytest.approx((0.8, 0.7, np.nan, 0.4), nan_ok=True)
    assert theirs.any_overlap.per_category["laace0"] == pytest.approx([0.7, np.nan, np.nan], nan_ok=True)
    # without it: 0 of 3, whose find in the crowd is left out, 0 of 7 and 0.9 of 90
    assert "LaECE and LaACE as in fiveai" in tables(theirs) and "fiveai" not in tables(evaluated(truth, found))
    assert errors(evaluated(truth, found)) == pytest.approx((0.3, 0.3, 0.3, 0.3))


def test_settings_name_the_protocols():
    with pytest.raises(ValueError, match="protocol must be one of coco, fiveai, got 'lvis'"):
        Settings(protocol="lvis")
