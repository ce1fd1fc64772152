"""Deviations of boxes against slow references, and the factor that makes intervals cover."""

import json
import math
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, spearmanr

from uncertainty_core.detection import (
    CocoFormatError,
    Settings,
    evaluate,
    match_images,
    merge,
    read_detections,
    read_ground_truth,
)
from uncertainty_core.detection.box_std import BoxErrors, conformal_factor, metrics
from uncertainty_core.detection.coco_format import of_images
from uncertainty_core.detection.evaluation import box_errors, with_box_factor
from uncertainty_core.functional import crps_gaussian
from uncertainty_core.recalibration import CalibratorError, ConformalBoxes, check_fits, fit_to_boxes, load
from uncertainty_core.report.detectors import images_of

TOOL = Path(__file__).resolve().parents[3] / "tools" / "fit_calibrator.py"
COVERAGE = {"coverage50": 0.5, "coverage90": 0.9, "coverage95": 0.95}


def data(num_images, factor=1.0, seed=0):
    """Ground truth and results: errors of each box are Gaussian, of `factor` times the deviation that is stated."""
    random = np.random.default_rng(seed)
    images, annotations, results = [], [], []
    for k in range(num_images):
        images.append({"id": k, "width": 400, "height": 400})
        for number in range(3):
            x, y, w, h = 20 + 120 * number, 100, *random.uniform(60, 100, 2)
            std = random.uniform(0.5, 3, 4)
            left, top, right, bottom = np.array([x, y, x + w, y + h]) + factor * std * random.standard_normal(4)
            entry = {"image_id": k, "category_id": 1}
            annotations.append({"id": len(annotations) + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, **entry})
            box = [left, top, right - left, bottom - top]
            results.append({**entry, "bbox": box, "score": 0.9, "score_std": 0.1, "box_std": std.tolist()})
    results.append(
        {"image_id": 0, "category_id": 1, "bbox": [0, 300, 9, 9], "score": 0.9, "score_std": 0.1, "box_std": [1] * 4}
    )
    truth = {"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": annotations}
    return truth, results


def both(truth, results):
    ground_truth = read_ground_truth(truth)
    return ground_truth, read_detections(results, ground_truth)


def found(truth, results):
    """The true positives: each annotation has its result, in the same order."""
    rows = []
    for annotation, result in zip(truth["annotations"], results[:-1], strict=True):
        (x, y, w, h), (left, top, width, height) = annotation["bbox"], result["bbox"]
        error = [x - left, y - top, x + w - left - width, y + h - top - height]
        both = max(0, min(x + w, left + width) - max(x, left)) * max(0, min(y + h, top + height) - max(y, top))
        iou = both / (w * h + width * height - both)
        rows.append((annotation["image_id"], error, result["box_std"], [width, height], iou))
    return BoxErrors(*(np.array(column) for column in zip(*rows, strict=True)))


def test_every_metric_against_a_loop():
    truth, results = data(20, factor=1.3)
    ground_truth, detections = both(truth, results)
    settings = Settings()
    measured = evaluate(ground_truth, match_images(ground_truth, detections, settings), settings).box_std
    of = found(truth, results)
    error, std = of.error, of.std
    assert len(error) == 60  # the false positive has no error
    assert measured["box_nll"] == pytest.approx(-norm(0, std).logpdf(error).mean())
    # the energy score as an integral: of (CDF less step)²
    integrals = [
        quad(lambda x, e=e, s=s: (norm.cdf(x, 0, s) - (x >= e)) ** 2, -50, 50, points=[e], limit=200)[0]
        for e, s in zip(error[:5].ravel(), std[:5].ravel(), strict=True)
    ]
    scores = crps_gaussian(torch.from_numpy(error), torch.from_numpy(std)).numpy()
    assert scores[:5].ravel() == pytest.approx(integrals, abs=1e-6)
    assert measured["box_crps"] == pytest.approx(scores.mean())
    for name, level in COVERAGE.items():
        low, high = norm(0, std).interval(level)
        assert measured[name] == pytest.approx(((low <= error) & (error <= high)).mean())
    relative = (std / of.size[:, [0, 1, 0, 1]]).mean(1)
    assert measured["box_rank"] == pytest.approx(spearmanr(relative, 1 - of.iou).statistic)
    gaps = []
    pairs = sorted(zip(std.ravel(), error.ravel(), strict=True))
    for k in range(0, 240, 24):
        deviation, miss = (
            math.sqrt(sum(v * v for v in column) / 24) for column in zip(*pairs[k : k + 24], strict=True)
        )
        gaps.append(abs(miss - deviation) / deviation)
    assert measured["box_ence"] == pytest.approx(sum(gaps) / 10)


def test_true_deviations_are_found_to_be_so():
    measured = metrics(found(*data(2000)))
    assert {name: measured[name].item() for name in COVERAGE} == pytest.approx(COVERAGE, abs=0.01)
    assert measured["box_ence"] < 0.03


def test_without_true_positives_nothing_is_known():
    none = metrics(BoxErrors(*(np.zeros(shape) for shape in (0, (0, 4), (0, 4), (0, 2), 0))))
    assert len(none) == 7 and all(value.isnan().all() and value.shape == (1,) for value in none.values())
    truth, results = data(1)
    ground_truth, detections = both(truth, [{k: v for k, v in one.items() if "std" not in k} for one in results])
    assert evaluate(ground_truth, match_images(ground_truth, detections, Settings()), Settings()).box_std is None
    with pytest.raises(CocoFormatError, match="hold no 'box_std': train the detector with"):
        fit_to_boxes(ground_truth, detections)


def test_parts_of_several_processes_add_up():
    ground_truth, detections = both(*data(6))
    settings = Settings()
    parts = []
    for chosen in ([0, 3], [], [1, 2, 4, 5]):  # the second process saw nothing, and knows of no deviations
        index = np.flatnonzero(np.isin(detections.image, chosen))
        part = detections.take(index)
        parts.append(match_images(ground_truth, part, settings))
    whole = match_images(ground_truth, detections, settings)
    joined = merge(parts)
    assert np.array_equal(joined.truth, whole.truth)
    assert evaluate(ground_truth, joined, settings).box_std == evaluate(ground_truth, whole, settings).box_std


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"box_std": [1, 2, -3, 4]}, "detections[1] has a negative 'box_std'"),
        ({"box_std": [1, 2, 3]}, "detections[1] has 'box_std' [1, 2, 3]; it must be 4 numbers"),
        ({"score_std": -0.5}, "detections[1] has a negative 'score_std'"),
    ],
)
def test_what_is_no_deviation_is_refused(change, sentence):
    truth, results = data(1)
    results[1] |= change
    with pytest.raises(CocoFormatError) as caught:
        both(truth, results)
    assert sentence in str(caught.value)
    del results[1]["box_std"]
    with pytest.raises(CocoFormatError, match=r"detections\[1\] has no 'box_std'|negative 'score_std'"):
        both(truth, results)


# --- split conformal ---------------------------------------------------------------------------------------------


def test_the_factor_by_hand():
    # Ratios 1, ..., 19: k = ceil(20 · 0.9) = 18, and an interval of 90 % reaches 1.6449 deviations.
    assert conformal_factor(np.arange(1.0, 20), np.ones(19)) == pytest.approx(18 / norm.ppf(0.95))
    with pytest.raises(ValueError, match=r"intervals of level 0\.9 need more than the 8 sides"):
        conformal_factor(np.ones(8), np.ones(8))


def test_a_factor_of_other_images_has_a_coverage_of_its_own():
    # Deviations are half of what they should be: intervals of 90 % reach 0.82 true deviations, which cover 59 %.
    ground_truth, detections = both(*data(500, factor=2.0))
    measured = evaluate(ground_truth, match_images(ground_truth, detections, Settings()), Settings())
    scaled = with_box_factor(measured, 2.0)
    assert "coverage90_conformal" not in measured.box_std
    assert scaled.box_std.pop("coverage90_conformal") == pytest.approx(0.9, abs=0.02)
    assert scaled.box_std == measured.box_std and scaled.box_std["coverage90"] == pytest.approx(0.589, abs=0.03)
    drawn = images_of(with_box_factor(measured, 1.0)).deviations(torch.ones(500, 1))
    assert drawn["coverage90_conformal"].item() == pytest.approx(measured.box_std["coverage90"])


def test_ninety_percent_of_new_sides_are_covered():
    # The mean over many draws of a fit to 10 images and 30 others.
    shares = []
    for seed in range(30):
        truth, results = both(*data(40, factor=2.0, seed=seed))
        chosen = np.arange(40) < 10
        fitted, held_out = (of_images(truth, results, part) for part in (chosen, ~chosen))
        factor = fit_to_boxes(*fitted).factor
        matched = match_images(*held_out, Settings((0.5,)))
        of = box_errors(held_out[0], matched, 1, 0.05)
        shares.append(metrics(replace(of, std=of.std * factor))["coverage90"].item())
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)


def test_the_tool_fits_and_applies_a_factor(tmp_path, monkeypatch, capfd):
    truth, results = data(40, factor=2.0)
    for name, content in (("gt", truth), ("dt", results), ("new", data(5, factor=2.0, seed=1)[1])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    words = ["gt.json", "dt.json", "--target", "box", "--apply", "new.json", "--output", "scaled.json"]
    monkeypatch.setattr(sys, "argv", [str(TOOL), *words])
    runpy.run_path(str(TOOL), run_name="__main__")
    shown = capfd.readouterr().out
    assert "before" in shown and "after" in shown and "coverage90 0.9" in shown.split("after")[1]
    calibrator = load("calibrator.json")
    assert calibrator == ConformalBoxes(pytest.approx(2, abs=0.2), 0.9)
    before, after = (json.loads((tmp_path / name).read_text()) for name in ("new.json", "scaled.json"))
    for one, other in zip(before, after, strict=True):
        assert other.pop("box_std") == pytest.approx([calibrator.factor * std for std in one.pop("box_std")])
        assert one == other
    with pytest.raises(CalibratorError, match="is for deviations of boxes, and one for scores is needed"):
        check_fits(calibrator, "scores", 1)
