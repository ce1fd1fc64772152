"""Federated annotations: what LVIS's own code returned for the same data, and cases by hand."""

import copy
import math

import numpy as np
import pytest
from references_detection import drawn_case

from uncertainty_core.detection import (
    CocoFormatError,
    Settings,
    evaluate,
    match_images,
    merge,
    read_detections,
    read_ground_truth,
    tables,
    write_report,
)

# Of `drawn_case(seed, federated=True)`, by lvis 0.5.3 with `numpy.float = float`, which it needs and NumPy 2 lacks.
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300", "ARs", "ARm", "ARl"]
RECORDED = {
    0: "52.92890394278804 67.37207762346445 54.73078431191261 24.768589575726235 56.11871150900781 nan 100 "
    "47.34062379362313 17.03436818390589 89.3881118881119 71.625 94.1824494949495 nan",
    1: "42.46692878433424 55.69737824650065 41.04359837680881 17.44762646702076 46.69910238925781 77.26190476190476 "
    "100 20.73908462945297 28.389545878431026 85.625 58.333333333333336 91.54166666666667 100",
}


def evaluated(truth, found, **settings):
    settings = Settings(**settings)
    truth = read_ground_truth(truth)
    return evaluate(truth, match_images(truth, read_detections(found, truth), settings), settings)


@pytest.mark.parametrize("seed", RECORDED)
def test_as_recorded(seed, tmp_path):
    evaluation = evaluated(*drawn_case(seed, federated=True), iou_thresholds=(0.5,))
    assert list(evaluation.precision) == NAMES
    np.testing.assert_allclose(
        list(evaluation.precision.values()), np.float64(RECORDED[seed].split()), rtol=0, atol=1e-9
    )
    assert "APr" in tables(evaluation, per_category=True) and "as in LVIS" in tables(evaluation)
    assert '"federated": true' in write_report(evaluation, tmp_path)[0].read_text()


def test_images_in_parts_are_as_images_at_once():
    content, results = drawn_case(0, federated=True)
    truth = read_ground_truth(content)
    parts = [
        match_images(truth, read_detections([r for r in results if r["image_id"] in ids], truth), Settings())
        for ids in ({1, 3, 8}, {2, 4, 5, 6, 7})
    ]
    merged, whole = evaluate(truth, merge(parts), Settings()), evaluated(content, results)
    assert merged.precision == pytest.approx(whole.precision, rel=0, abs=0, nan_ok=True)
    assert merged.calibration_metrics == whole.calibration_metrics


BOX, ELSEWHERE = [0, 0, 100, 100], [200, 0, 100, 100]


def small_case():
    """An image with a cat and a dog, certainly no bird, and other dogs without a box; of fish nobody knows."""
    names = {1: "cat", 2: "dog", 3: "bird", 4: "fish"}
    truth = {
        "images": [
            {"id": 1, "width": 400, "height": 300, "neg_category_ids": [3], "not_exhaustive_category_ids": [2]},
            {"id": 2, "width": 400, "height": 300, "neg_category_ids": [], "not_exhaustive_category_ids": []},
        ],
        "categories": [{"id": k, "name": name, "frequency": "c"} for k, name in names.items()],
        "annotations": [{"id": k, "image_id": 1, "category_id": k, "bbox": BOX, "area": 10_000} for k in (1, 2)],
    }
    found = [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in (
            (1, 1, BOX, 0.9),  # a hit
            (1, 1, ELSEWHERE, 0.6),  # a miss: all cats have a box
            (1, 2, BOX, 0.8),  # a hit
            (1, 2, ELSEWHERE, 0.95),  # perhaps one of the dogs without a box: ignored
            (1, 3, BOX, 0.3),  # a miss
            (1, 4, BOX, 0.99),  # who knows
            (2, 1, BOX, 0.7),  # nor here
        )
    ]
    return truth, found


def test_by_hand():
    evaluation = evaluated(*small_case(), iou_thresholds=(0.5,), num_bins=10)
    # 0.9 and 0.8 are hits, 0.6 and 0.3 misses, each in a bin of its own
    (at,) = evaluation.calibration
    assert at.result.num_samples == 4
    assert at.metrics["d_ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)
    # cat (0.1 + 0.6) / 2, dog 0.2, bird 0.3; no fish
    assert at.metrics["laece"] == pytest.approx((0.35 + 0.2 + 0.3) / 3)
    assert at.per_category["lrp"] == pytest.approx([0.5, 0, 1, math.nan], nan_ok=True)
    # cats and dogs are found before anything that is wrong
    assert evaluation.precision["AP"] == 100 and evaluation.precision["AR300"] == 100
    assert evaluation.precision["APc"] == 100 and math.isnan(evaluation.precision["APr"])
    # as COCO: the ignored dog is a false positive, and so are a fish and the other cat; dog: 1/2
    truth, found = small_case()
    plain = truth | {"images": [{k: v for k, v in image.items() if "ids" not in k} for image in truth["images"]]}
    as_coco = evaluated(plain, found, iou_thresholds=(0.5,))
    assert as_coco.precision["AP"] == pytest.approx(75) and as_coco.calibration[0].result.num_samples == 7


def test_the_three_hundred_best_of_an_image_take_part():
    truth, _ = small_case()
    birds = [{"image_id": 1, "category_id": 3, "bbox": ELSEWHERE, "score": 0.9}] * 299
    cats = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in ((BOX, 0.5), (BOX, 0.4))]
    evaluation = evaluated(truth, birds + cats)
    assert evaluation.calibration[0].result.num_samples == 300
    assert evaluation.precision_per_category["AR300"][0] == 100
    assert evaluated(truth, [*birds, *birds[:1], *cats]).precision_per_category["AR300"][0] == 0


def test_a_setting_that_contradicts_the_annotations_is_refused():
    truth, found = small_case()
    with pytest.raises(CocoFormatError, match="the annotations are federated, since images list neg_category_ids"):
        evaluated(truth, found, federated=False)
    assert evaluated(truth, found, federated=True).precision["AP"] == 100
    for image in truth["images"]:  # lists that are all empty say nothing
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    with pytest.raises(CocoFormatError, match="the annotations are not federated"):
        evaluated(truth, found, federated=True)
    assert "AR100" in evaluated(truth, found).precision


@pytest.mark.parametrize("named", [[7], 3, [[1]], "12"])
def test_bad_lists_are_named(named):
    truth = copy.deepcopy(small_case()[0])
    truth["images"][1]["neg_category_ids"] = named
    with pytest.raises(
        CocoFormatError, match=r"images\[1\] has 'neg_category_ids' .*; it must be a list of ids of cat"
    ):
        read_ground_truth(truth)
