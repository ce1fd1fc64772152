"""Metrics of drawn images: those of a data set that holds each image as often as it was drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from references_detection import IMAGES, cases, drawn_case

from uncertainty_core import CalibrationMetric, GroupMean, PixelRanking, aurc, ranking
from uncertainty_core.detection import Settings, evaluate, match_images, read_detections, read_ground_truth
from uncertainty_core.detection.report import measured as measured_of
from uncertainty_core.errors import UserError
from uncertainty_core.functional.calibration import fine_bins
from uncertainty_core.functional.sparsification import NUM_LEVELS, PixelLevels
from uncertainty_core.intervals.cells import CellSums
from uncertainty_core.intervals.classified import ClassifiedImages
from uncertainty_core.intervals.detected import DetectedImages
from uncertainty_core.intervals.segmented import SegmentedImages, calibration_row, class_row, ranking_row
from uncertainty_core.intervals.storage import FILE, read_images, read_resamples, write_images

SETTINGS = Settings((0.5,))


def test_cells_against_a_loop():
    image, cell = torch.tensor([0, 2, 2, 0, 1]), torch.tensor([3, 1, 1, 3, 0])
    value = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    weights = torch.tensor([[1, 0], [2, 5], [3, 7]]).double()
    sums = CellSums(image, cell, 5, value=value)
    # cell 0: image 1 once; cell 1: image 2 twice, 6 in all; cell 3: image 0 twice, 9 in all
    assert sums.drawn(weights).tolist() == [[2, 6, 0, 2, 0], [5, 14, 0, 0, 0]]
    assert sums.drawn(weights, "value").tolist() == [[32, 18, 0, 9, 0], [80, 42, 0, 0, 0]]
    none = torch.zeros(0, dtype=torch.int64)
    assert CellSums(none, none, 2).drawn(weights).tolist() == [[0, 0], [0, 0]]


# Classifiers


def classified(probabilities, labels):
    confidence, prediction = probabilities.max(1)
    metric = {"brier": (probabilities - torch.eye(3)[labels]).square().sum(1)}
    ids = [str(k) for k in range(len(labels))]
    scores = {name: values.numpy() for name, values in metric.items()}
    return ClassifiedImages(ids, confidence.numpy(), (prediction == labels).numpy(), scores)


def test_classified_images_are_measured_as_often_as_they_are_drawn():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(40, 3, generator=generator).softmax(1)
    labels = torch.randint(3, (40,), generator=generator)
    weights = torch.randint(3, (40, 4), generator=generator)
    measured = classified(probabilities, labels).metrics(weights.double())
    for k, drawn in enumerate(weights.T):
        p, label = probabilities.repeat_interleave(drawn, 0), labels.repeat_interleave(drawn)
        metric = CalibrationMetric(3)
        metric.update(p, label)
        confidence, prediction = p.max(1)
        expected = metric.compute() | {"aurc": aurc(ranking(1 - confidence, prediction != label))}
        for name in ("accuracy", "ece", "msce", "mce", "adaptive_ece", "brier", "aurc"):
            assert measured[name][k].item() == pytest.approx(expected[name].item(), abs=1e-6), name


@pytest.mark.filterwarnings("ignore:.* is NaN")
def test_an_infinite_score_counts_where_it_is_drawn():
    images = ClassifiedImages(
        ["a", "b"], np.float32([0.5, 0.5]), np.array([True, False]), {"nll_true": np.array([1, np.inf])}
    )
    assert images.metrics(torch.tensor([[1, 1], [0, 1]]).double())["nll_true"].tolist() == [1, np.inf]


# Detectors


def evaluation(truth, found):
    truth = read_ground_truth(truth)
    return evaluate(truth, match_images(truth, read_detections(found, truth), SETTINGS), SETTINGS)


def copies(truth, found, drawn):
    """The data set in which each image is as often as it was drawn, by the id of the image."""
    images, annotations, detections = [], [], []
    for image in truth["images"]:
        for copy in range(drawn[image["id"]]):
            name = image["id"] + 1000 * copy
            images.append(image | {"id": name})
            annotations += [a | {"image_id": name} for a in truth["annotations"] if a["image_id"] == image["id"]]
            detections += [d | {"image_id": name} for d in found if d["image_id"] == image["id"]]
    annotations = [annotation | {"id": k} for k, annotation in enumerate(annotations)]
    return truth | {"images": images, "annotations": annotations}, detections


def check_draw(truth, found, drawn):
    images = DetectedImages.of(evaluation(truth, found), 0.5)
    ids = sorted(image["id"] for image in truth["images"])
    weights = torch.tensor([[drawn[image_id]] for image_id in ids]).double()
    measured = images.metrics(weights)
    expected = evaluation(*copies(truth, found, drawn))
    boxes = expected.box_std or {}
    expected = measured_of(expected)
    for name, value in measured.items():
        assert value.item() == pytest.approx(expected[name], abs=1e-9, nan_ok=True), name
    names = {"AP", "AP50", "AP75", "AR100", "ece", "d_ece_box", "nll", "laece", "laace", "lrp", "laece0", "oce"}
    assert names | boxes.keys() <= measured.keys()


def distinct_scores(found):
    """Ties among copies are in another order than those among images, and precision depends on it."""
    return [entry | {"score": max(entry["score"], 1e-6) * (1 - 1e-9 * k)} for k, entry in enumerate(found)]


@pytest.mark.filterwarnings("ignore:.* is NaN")
@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(cases(), st.lists(st.integers(0, 3), min_size=len(IMAGES), max_size=len(IMAGES)))
def test_detections_are_measured_as_often_as_their_images_are_drawn(case, counts):
    truth, found = case
    drawn = dict(zip((image["id"] for image in IMAGES), counts, strict=True))
    check_draw(truth, distinct_scores(found), drawn)


def test_drawn_detections_of_more_images():
    truth, found = drawn_case(0)
    random = np.random.default_rng(0)
    found = [entry | {"box_std": random.uniform(0.1, 9, 4).tolist()} for entry in distinct_scores(found)]
    check_draw(truth, found, {image["id"]: image["id"] % 4 for image in truth["images"]})


def test_what_a_protocol_defines_by_itself_has_no_interval():
    truth, found = drawn_case(0)
    truth, settings = read_ground_truth(truth), Settings((0.5,), protocol="fiveai")
    found = evaluate(truth, match_images(truth, read_detections(found, truth), settings), settings)
    assert not {"laece", "laace", "laece0"} & DetectedImages.of(found, 0.5).metrics(torch.ones(8, 1).double()).keys()


# Segmentors


def test_segmented_images_are_measured_as_often_as_they_are_drawn():
    generator = torch.Generator().manual_seed(0)
    removed, classes, void = (0.0, 0.2, 0.5), 3, 255
    probabilities = torch.randn(4, classes, 5, 6, generator=generator).softmax(1)
    label = torch.randint(classes, (4, 5, 6), generator=generator)
    label[:, 0, :2] = void
    # powers of two, each of which has a coarse level of its own
    uncertainty = 0.5 ** torch.randint(6, (4, 5, 6), generator=generator)
    drawn = [2, 0, 1, 3]

    def states(indices):
        new = (
            CalibrationMetric(classes, ignore_index=void),
            PixelRanking(classes, removed, void),
            GroupMean(classes, void),
        )
        for k in indices:
            new[0].update(probabilities[k : k + 1], label[k : k + 1])
            new[1].update(probabilities[k].argmax(0), label[k], uncertainty[k])
            new[2].update(uncertainty[k], label[k])
        return new

    rows = []
    for k in range(4):
        calibration, order, mean = states([k])
        rows.append(
            calibration_row(calibration.bin_sums, calibration.score_sums, calibration.scores)
            | ranking_row(order.levels)
            | class_row({"mUnc": mean.sums})
        )
    images = SegmentedImages.of_rows(list("abcd"), rows, removed=removed)
    measured = images.metrics(torch.tensor(drawn).double().unsqueeze(1))
    calibration, order, mean = states([k for k, times in enumerate(drawn) for _ in range(times)])
    expected = calibration.compute() | order.compute() | {"mUnc": mean.compute()["mean"]}
    expected |= {"mIoU": 100 * expected["miou"], "aAcc": 100 * expected["accuracy"]}
    assert images.count.shape == (4, fine_bins(15))
    for name, value in measured.items():
        # excesses are kept in single precision
        assert value.item() == pytest.approx(expected[name].item(), abs=1e-6), name
    assert {"ece", "brier", "mIoU", "aAcc", "ause", "aurc", "error_auroc", "auroc", "fpr95", "mUnc"} <= measured.keys()


def test_levels_are_kept_in_groups_but_for_both_ends():
    each = torch.ones(NUM_LEVELS, 2, dtype=torch.int64)
    kept = ranking_row(PixelLevels(each, each, each[:, 0]))
    assert kept["right"].shape == (24 * 32 + 2, 2)
    assert kept["void"].tolist() == [1, *[4] * 768, 1]


# On disk


def test_images_are_read_as_they_were_written(tmp_path):
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(9, 3, generator=generator).softmax(1)
    pixels = SegmentedImages(list("ab"), class_count=np.ones((2, 3)), class_sums={"mUnc": np.ones((2, 3))})
    for images in (
        classified(probabilities, torch.zeros(9, dtype=torch.int64)),
        DetectedImages.of(evaluation(*drawn_case(0)), 0.5),
        pixels,
    ):
        write_images(tmp_path, images, {"d_ece": torch.tensor([0.25, 0.5])})
        found = read_images(tmp_path)
        assert {name: values.tolist() for name, values in read_resamples(tmp_path).items()} == {"d_ece": [0.25, 0.5]}
        assert type(found) is type(images) and found.ids == images.ids
        weights = torch.ones(len(images.ids), 1, dtype=torch.float64)
        assert found.metrics(weights) == images.metrics(weights)


def test_reading_nothing_and_what_is_damaged(tmp_path):
    assert read_images(tmp_path) is None and read_resamples(tmp_path) == {}
    (tmp_path / FILE).write_text(json.dumps({}))
    with pytest.raises(UserError, match="is damaged"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"success": np.zeros(9)}, "success must hold true or false, got float64"),
        ({"success": np.zeros(8, bool)}, r"success must have the shape \(9,\), got \(8,\)"),
        ({"confidence": np.full(9, np.nan)}, r"confidence must lie in \[0, 1\], got nan"),
        ({"scores": {"brier": np.zeros((9, 2))}}, r"scores.brier must have the shape \(9,\), got \(9, 2\)"),
        ({"num_bins": 0}, r"num_bins must lie in \[1, "),
    ],
)
def test_arrays_that_do_not_fit_each_other(changes, message):
    images = classified(torch.full((9, 3), 1 / 3), torch.zeros(9, dtype=torch.int64))
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(images, **changes)


def test_detections_of_no_image_or_in_no_order():
    images = DetectedImages.of(evaluation(*drawn_case(0)), 0.5)
    for field in ("image", "truth_image", "category", "truth_category", "place"):
        with pytest.raises(ValueError, match=f"^{field} must lie in"):
            replace(images, **{field: getattr(images, field) + 1000})
    with pytest.raises(ValueError, match=r"^score must fall within each category"):
        replace(images, category=images.category[::-1].copy())


def test_levels_go_with_each_other():
    levels = np.ones((2, 770, 3), np.uint32)  # 24 * 128 / 4 levels and both ends
    images = SegmentedImages(list("ab"), right=levels, wrong=levels, void=levels[..., 0])
    with pytest.raises(ValueError, match=r"^right goes with wrong and void"):
        replace(images, void=None)
    with pytest.raises(ValueError, match=r"^void must have the shape \(2, 770\), got \(2, 769\)"):
        replace(images, void=images.void[:, 1:])
