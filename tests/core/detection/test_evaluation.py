"""The whole way from files to scores: by the book on random sets, in parts, with nothing to count, and on paper."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references_detection import (
    CATEGORIES,
    IMAGES,
    cases,
    detection_metrics,
    matched_by_coco,
    object_calibration_error,
)
from strict import strictly

from uncertainty_core.detection import (
    Settings,
    at_equal_count,
    evaluate,
    match_images,
    merge,
    read_detections,
    read_ground_truth,
    tables,
    write_report,
)
from uncertainty_core.functional.calibration import BIN_METRICS, FINE_BIN_METRICS, CalibrationResult

BOX = [0, 0, 100, 100]
METRICS = [
    *BIN_METRICS,
    *FINE_BIN_METRICS,
    "d_ece",
    "d_ece_box",
    "nll_pred",
    "nll",
    "brier",
    "laece",
    "laace",
    "lrp",
    "n",
    "classes",
    "nll_clamped",
]


def ground_truth(*annotations):
    """COCO ground truth of (image, category, box, iscrowd)."""
    names = ("image_id", "category_id", "bbox", "iscrowd")
    entries = [dict(zip(names, values, strict=True)) for values in annotations]
    entries = [{"id": k + 1, "area": e["bbox"][2] * e["bbox"][3], **e} for k, e in enumerate(entries)]
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": entries}


def detections(*entries):
    """COCO results of (image, category, box, score)."""
    names = ("image_id", "category_id", "bbox", "score")
    return [dict(zip(names, values, strict=True)) for values in entries]


def evaluated(truth, found, **settings):
    settings = Settings(**settings)
    truth = read_ground_truth(truth)
    return evaluate(truth, match_images(truth, read_detections(found, truth), settings), settings)


ONE_OF_EACH = (
    ground_truth((11, 3, BOX, 0), (11, 90, BOX, 0), (2, 3, BOX, 0)),
    # IoU 0.8, 0.4 and none at all
    detections((11, 3, [0, 0, 80, 100], 0.9), (11, 90, [0, 0, 40, 100], 0.6), (5, 3, BOX, 0.3)),
)


@pytest.mark.filterwarnings("ignore:.* is NaN")
@given(cases())
def test_calibration_by_the_book_on_what_pycocotools_matches(case):
    truth, found = case
    evaluation = evaluated(truth, found)
    category_ids = sorted(category["id"] for category in CATEGORIES)
    counted = [a["category_id"] for a in truth["annotations"] if not a["iscrowd"]]
    num_ground_truth = [counted.count(category_id) for category_id in category_ids]
    assert [at.iou_threshold for at in evaluation.calibration] == [0.3, 0.5, 0.7]
    for at in evaluation.calibration:
        matched = matched_by_coco(truth, found, at.iou_threshold, 0.05)
        assert at.result.num_samples == len(matched)
        expected = detection_metrics(matched, num_ground_truth, at.iou_threshold)
        for name, number in expected.items():
            assert at.metrics[name] == pytest.approx(number, abs=1e-12, nan_ok=True), name
    assert evaluation.oce == pytest.approx(object_calibration_error(truth, found), abs=1e-12, nan_ok=True)


@pytest.mark.filterwarnings("ignore:.* is NaN")
@given(cases(), st.permutations([0, 1, 2]), st.integers(0, 3))
def test_images_in_parts_are_as_images_at_once(case, order, cut):
    truth = read_ground_truth(case[0])
    whole = match_images(truth, read_detections(case[1], truth), Settings())
    parts = []
    for images in (order[:cut], order[cut:]):
        ids = [truth.image_ids[k] for k in images]
        found = [detection for detection in case[1] if detection["image_id"] in ids]
        parts.append(match_images(truth, read_detections(found, truth), Settings()))
    merged = merge(parts)
    for name, expected in vars(whole.detections).items():
        assert np.array_equal(getattr(merged.detections, name), expected), name
    assert all(np.array_equal(merged.outcome[name], whole.outcome[name]) for name in whole.outcome)
    for name in ("rank", "calibration_outcome", "iou"):
        assert np.array_equal(getattr(merged, name), getattr(whole, name)), name


def test_by_hand():
    evaluation = evaluated(*ONE_OF_EACH, iou_thresholds=(0.3, 0.5), num_bins=10)
    # found at 0.3: two of three; at 0.5 one; each detection in a bin of its own
    low, high = evaluation.calibration
    assert low.metrics["ece"] == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    assert high.metrics["ece"] == pytest.approx((0.1 + 0.6 + 0.3) / 3)
    # class 3: |0.9 - 0.8| and |0.3 - 0|; class 90: |0.6 - 0.4|, at 0.5 |0.6 - 0|
    assert low.metrics["laece"] == pytest.approx((0.4 / 2 + 0.2) / 2)
    assert high.metrics["laece"] == pytest.approx((0.4 / 2 + 0.6) / 2)
    assert evaluation.any_overlap.metrics["laece0"] == pytest.approx((0.4 / 2 + 0.2) / 2)
    # class 3: (0.2/0.5 + a false alarm + a miss) / 3; class 90: a false alarm and a miss, nothing found
    assert high.metrics["lrp"] == pytest.approx((2.4 / 3 + 1) / 2)
    # in the order of the ids 3, 7, 90; nobody claims or has a 7
    assert high.per_category["lrp"] == pytest.approx([0.8, math.nan, 1], nan_ok=True)
    assert evaluation.calibration_metrics["ece@30"] == low.metrics["ece"]
    assert list(evaluation.calibration_metrics) == [
        *(f"{name}@{t}" for t in (30, 50) for name in low.metrics),
        "laece0",
        "laace0",
        "oce",
    ]
    # one detection tells of both boxes of image 11: 2 · 0.1², and of another category 2 · 0.9²; the third box is missed
    assert evaluation.oce == pytest.approx((0.02 + 1.62 + 1) / 3)
    assert evaluation.oce_per_category == pytest.approx([1.02 / 2, math.nan, 1.62], nan_ok=True)
    assert set(low.metrics) == set(METRICS)
    assert evaluation.calibration_per_category["laace0"] == pytest.approx([0.2, math.nan, 0.2], nan_ok=True)


def test_what_crowds_hide_is_left_out_differs_from_detection_calibration():
    """fiveai/detection_calibration counts a detection ignored as crowd in LaACE, with IoU 0; here in nothing.

    Score 0.8 with IoU 0.8, and 0.6 in a crowd: LaACE 0 here, (0 + 0.6) / 2 = 0.3 there.
    """
    crowd = [200, 0, 100, 100]
    evaluation = evaluated(
        ground_truth((11, 3, BOX, 0), (11, 3, crowd, 1)),
        detections((11, 3, [0, 0, 80, 100], 0.8), (11, 3, [220, 20, 10, 10], 0.6)),
    )
    assert evaluation.any_overlap.metrics["laace0"] == pytest.approx(0, abs=1e-14)
    for at in evaluation.calibration:
        assert at.result.num_samples == 1
        assert at.metrics["laace"] == pytest.approx(0, abs=1e-14)
        assert at.metrics["brier"] == pytest.approx(0.04)


def test_scores_below_the_threshold_enter_precision_alone():
    truth = ground_truth((11, 3, BOX, 0))
    # the 0.05 of single precision is 0.0500000007
    found = detections((11, 3, BOX, 0.04), (11, 3, [300, 0, 10, 10], 0.05), (2, 3, BOX, float(np.float32(0.05))))
    evaluation = evaluated(truth, found)
    assert [at.result.num_samples for at in evaluation.calibration] == [2, 2, 2]
    # found third, after two false positives
    assert evaluation.precision["AP"] == pytest.approx(100 / 3)
    assert evaluated(truth, found, score_threshold=0).calibration[0].result.num_samples == 3


def test_rows_are_compared_on_equally_many_detections():
    # Baseline: a hit of 0.9, a miss of 0.7. Student: a hit of 0.8, misses of 0.6 and, cheap, three of 0.1.
    # D-ECE of all: (0.1 + 0.7) / 2 and (0.2 + 0.6 + 0.3) / 5, which looks better; of the best two: (0.2 + 0.6) / 2.
    truth, miss = ground_truth((11, 3, BOX, 0)), [300, 0, 10, 10]
    baseline = evaluated(truth, detections((11, 3, BOX, 0.9), (2, 3, miss, 0.7)))
    found = detections((2, 3, miss, 0.6), (11, 3, BOX, 0.8), *[(11, 90, miss, 0.1)] * 3)
    student = evaluated(truth, found)
    assert student.calibration_metrics["d_ece@50"] == pytest.approx(1.1 / 5)
    first, second = at_equal_count([baseline, student], 0.5)
    assert first.metrics == baseline.calibration[1].metrics
    assert second.metrics["d_ece"] == pytest.approx(0.4) and second.metrics["n"] == 2 and second.metrics["classes"] == 1
    # scores before recalibration choose: 0.6 is worth 0.9 now, and still second
    raised = [
        {**entry, "score_before": entry["score"], "score": s}
        for entry, s in zip(found, [0.9, 0.8, 1, 1, 1], strict=True)
    ]
    _, again = at_equal_count([baseline, evaluated(truth, raised)], 0.5)
    assert again.metrics["d_ece"] == pytest.approx((0.9 + 0.2) / 2)


def test_the_hundred_best_of_an_image_and_category_count():
    truth = ground_truth((11, 3, BOX, 0))
    evaluation = evaluated(truth, detections(*[(11, 3, [300, 0, 10, 10], 0.9)] * 120, (11, 90, BOX, 0.5)))
    assert evaluation.calibration[0].result.num_samples == 101


@pytest.mark.filterwarnings("ignore:.* is NaN")
@pytest.mark.parametrize(
    ("truth", "found", "ap", "samples", "lrp"),
    [
        (ground_truth((11, 3, BOX, 0)), [], 0, 0, 1),
        (ground_truth(), [], math.nan, 0, math.nan),
        (ground_truth(), detections((11, 3, BOX, 0.9)), math.nan, 1, 1),
        (ground_truth((11, 3, BOX, 1)), detections((11, 3, BOX, 0.9)), math.nan, 0, math.nan),
        ({"images": [], "categories": CATEGORIES, "annotations": []}, [], math.nan, 0, math.nan),
        (ground_truth((11, 3, [5, 5, 0, 0], 0)), detections((11, 3, [5, 5, 0, 0], 0.9)), 0, 1, 1),
    ],
    ids=["no detections", "nothing", "no ground truth", "all crowd", "no images", "no area"],
)
def test_nothing_to_count(truth, found, ap, samples, lrp, tmp_path):
    evaluation = evaluated(truth, found, iou_thresholds=(0.5,))
    assert evaluation.precision["AP"] == pytest.approx(ap, nan_ok=True)
    (at,) = evaluation.calibration
    assert at.result.num_samples == samples
    assert at.metrics["lrp"] == pytest.approx(lrp, nan_ok=True)
    assert math.isnan(at.metrics["ece"]) == (samples == 0)
    assert tables(evaluation, per_category=True)
    write_report(evaluation, tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"iou_thresholds": (0.5, 0)}, r"iou_thresholds must lie in \(0, 1\), got 0.0"),
        ({"iou_thresholds": ()}, "iou_thresholds must hold at least one"),
        ({"iou_thresholds": (1,)}, r"iou_thresholds must lie in \(0, 1\), got 1.0"),
        ({"iou_thresholds": (0.5, 0.5)}, r"iou_thresholds must differ, got \(0.5, 0.5\)"),
        ({"num_bins": 0}, "num_bins must be an integer >= 1"),
        ({"edges": "middle"}, "edges must be 'right' or 'left'"),
        ({"score_threshold": 1.5}, r"score_threshold must lie in \[0, 1\], got 1.5"),
    ],
)
def test_settings_are_checked(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Settings(**settings)


def test_report(tmp_path):
    truth, found = ONE_OF_EACH
    evaluation = evaluated(truth, found, iou_thresholds=(0.3, 0.555), num_bins=10)
    written = write_report(evaluation, tmp_path / "new" / "folder")
    names = ["calibration.json"]
    names += [f"reliability_iou{t}.{kind}" for t in ("30", "55.5") for kind in ("json", "png")]
    assert sorted(path.name for path in written) == sorted(names)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(names)

    content = strictly(written[0].read_text())
    assert content["categories"][1] == {"id": 7, "name": "seven"}
    assert content["bbox"]["metrics"]["AP50"] == evaluation.precision["AP50"]
    assert content["bbox"]["per_category"]["AP"][1] == "nan"
    assert content["bbox"]["settings"]["max_detections"] == [1, 10, 100]
    assert [at["settings"]["iou_threshold"] for at in content["calibration"]] == [0.3, 0.555, 0]
    low, high, any_overlap = content["calibration"]
    assert high["settings"] == {
        "iou_threshold": 0.555,
        "score_threshold": 0.05,
        "num_bins": 10,
        "laece_bins": 25,
        "d_ece_box_bins_per_dimension": 5,
        "edges": "right",
        "max_detections": 100,
        "protocol": "coco",
        "federated": False,
    }
    assert high["metrics"] == evaluation.calibration[1].metrics and high["num_detections"] == 3
    assert low["per_category"]["lrp"][1] == "nan"
    assert content["objects"]["metrics"] == {"oce": evaluation.oce}
    assert any_overlap["metrics"] == {"laece0": pytest.approx(0.2), "laace0": pytest.approx(0.2)}

    bins = CalibrationResult.from_json(written[1].read_text())
    assert bins == evaluation.calibration[0].result
    assert bins.bins.count.tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written if path.suffix == ".png")


def test_tables():
    evaluation = evaluated(*ONE_OF_EACH, num_bins=10)
    text = tables(evaluation)
    assert "IoU 0.3" in text and "any overlap" in text and "10 bins" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert [float(cell) for cell in rows["LaECE"]] == pytest.approx([0.2, 0.4, 0.4, 0.2])
    assert len(rows["LRP"]) == 3
    assert "seven" not in text
    lines = tables(evaluation, per_category=True).splitlines()
    # AP of "three", found at IoU 0.8 and one missed: half of the recalls are reached, 51 of 101, up to 0.8 of 7 of ten
    (three,) = [line.split() for line in lines if line.startswith("three")][:1]
    assert float(three[1]) == pytest.approx(100 * 0.7 * 51 / 101, abs=5e-3)
    assert sum(line.startswith("three") for line in lines) == 4
