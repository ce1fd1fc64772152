"""Calibrators of detections in COCO's format: what they are fitted to, what counts afterwards, and the tool."""

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from references_detection import drawn_case

from uncertainty_core.detection import Settings, evaluate, match_images, read_detections, read_ground_truth
from uncertainty_core.detection.coco_format import of_images
from uncertainty_core.recalibration import (
    ClassWise,
    Platt,
    Recipe,
    Temperature,
    apply_to_results,
    before_and_after,
    fit_to_detections,
    fitted_half,
    load,
    samples,
)


def data_set(num_images=4):
    """Images with one box each, found at 0.9 in three of four; in the last of each four the detection is elsewhere."""
    box, ids = [10, 10, 20, 20], range(1, num_images + 1)
    ground_truth = {
        "images": [{"id": k, "width": 100, "height": 100} for k in ids],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0} for k in ids
        ],
    }
    detections = [
        {"image_id": k, "category_id": 1, "bbox": box if k % 4 else [60, 60, 20, 20], "score": 0.9} for k in ids
    ]
    return ground_truth, detections


def fitted(content, results, *recipe, **options):
    truth = read_ground_truth(content)
    return fit_to_detections(truth, read_detections(results, truth), *recipe, **options)


def measured(truth, results):
    truth = read_ground_truth(truth)
    return evaluate(truth, match_images(truth, read_detections(results, truth), Settings((0.5,))), Settings((0.5,)))


def test_targets():
    # Boxes 20 wide and high: one is met by half, an IoU of 1/3, which is no hit at 0.5; one wholly; one not at all.
    content, (found, *_) = data_set(2)
    results = [
        {**found, "bbox": [20, 10, 20, 20], "score": 0.8},
        {**found, "image_id": 2},
        {**found, "image_id": 2, "bbox": [60, 60, 9, 9]},
    ]
    truth = read_ground_truth(content)
    at_half = samples(truth, read_detections(results, truth), 0.5)
    assert at_half.target("hit").tolist() == at_half.target("iou").tolist() == [0, 1, 0]
    any_overlap = samples(truth, read_detections(results, truth), 0.0)
    assert any_overlap.target("hit").tolist() == [1, 1, 0]
    assert any_overlap.target("iou").tolist() == pytest.approx([1 / 3, 1, 0])
    # the mean target of 0.9 is 1/2; 1/3 is that of 0.8, so that both pool: of isotonic towards the IoU
    fit = fitted(content, results, Recipe("linear", target="iou"))
    assert (fit.slope, fit.intercept) == pytest.approx(((1 / 2 - 1 / 3) / 0.1, 1 / 3 - 0.8 * (1 / 2 - 1 / 3) / 0.1))


def test_low_scores_are_not_fitted_to():
    content, results = data_set()
    # below the threshold a score does not count, however wrong it is
    results.append({"image_id": 1, "category_id": 1, "bbox": [50, 50, 9, 9], "score": 0.01})
    assert fitted(content, results).temperature == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(("temperature", "error"), [(1, 0.1), (0.5, 1 / 82), (2, 0.25)])
def test_calibrated_scores_count_where_the_scores_before_do(temperature, error):
    # Odds of 9 (a hit), 1/9 and 1/24 (two misses), that is scores of 0.9, 0.1 and 0.04, which does not count.
    # T = 1/2 squares the odds: 81/82 and 1/82, which lies below the threshold 0.05; T = 2 takes roots: 3/4, 1/4 and
    # 0.17, which lies above it. Hit and miss are as far off as each other: NLL is -log(1 - error), D-ECE error.
    content, (hit, *_) = data_set()
    content["annotations"] = content["annotations"][:1]
    results = [hit, *({**hit, "bbox": [60, 60, 20, 20], "score": score} for score in (0.1, 0.04))]
    once = apply_to_results(results, Temperature(temperature))
    (at,) = measured(content, once).calibration
    assert at.result.num_samples == 2
    assert at.metrics["d_ece"] == pytest.approx(error)
    assert at.metrics["nll"] == pytest.approx(-math.log(1 - error))
    # twice calibrated counts by the first scores
    assert measured(content, apply_to_results(once, Temperature(3.0))).calibration[0].result.num_samples == 2


def test_scores_that_become_equal_stay_in_order():
    # T = 1/100 rounds both to 1, and the miss stands first in the file: half the precision, but for the scores before
    content, (hit, *_) = data_set()
    content["annotations"] = content["annotations"][:1]
    results = apply_to_results([{**hit, "bbox": [60, 60, 20, 20], "score": 0.8}, hit], Temperature(0.01))
    assert [result["score"] for result in results] == [1, 1]
    assert measured(content, results).precision["AP"] == 100


@pytest.mark.parametrize(("temperature", "expected"), [(0.5, 4.0), (4.0, 0.5)])
def test_fit_to_calibrated_detections_counts_the_same(temperature, expected):
    # 2 is what mends the scores as they were; what was divided by T wants 2 / T
    content, results = data_set()
    results.append({**results[0], "bbox": [50, 50, 9, 9], "score": 0.01})  # 0.24 once divided by 4
    again = fitted(content, apply_to_results(results, Temperature(temperature)))
    assert again.temperature == pytest.approx(expected, abs=1e-6)


def test_class_wise_results_go_by_their_category_ids():
    calibrator = ClassWise((Platt(1.0, 0.0), Platt(0.0, 0.0)), ("a", "b"), (20, 20), 20)
    results = [{"category_id": 70, "score": 0.9}, {"category_id": 3, "score": 0.9}]
    assert [r["score"] for r in apply_to_results(results, calibrator, [3, 70])] == pytest.approx([0.5, 0.9])
    with pytest.raises(ValueError, match="was fitted for 2 classes, and here are 3"):
        apply_to_results(results, calibrator, [1, 3, 70])
    with pytest.raises(ValueError, match="has the 'category_id' 70, which the calibrator was not fitted for"):
        apply_to_results(results, calibrator, [3, 7])


def test_part_of_the_images_is_measured_as_if_it_were_all():
    content, results = drawn_case(1, federated=True)
    truth = read_ground_truth(content)
    chosen = np.array([k % 2 == 0 for k in range(8)])
    ids = {truth.image_ids[k] for k in range(8) if chosen[k]}
    part = of_images(truth, read_detections(results, truth), chosen)
    content["images"] = [image for image in content["images"] if image["id"] in ids]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    expected = measured(content, [entry for entry in results if entry["image_id"] in ids])
    found = evaluate(part[0], match_images(*part, Settings((0.5,))), Settings((0.5,)))
    assert found.precision == pytest.approx(expected.precision, nan_ok=True)
    assert found.calibration_metrics == pytest.approx(expected.calibration_metrics, rel=1e-12, nan_ok=True)


def test_halves_go_by_the_ids():
    ids = list(range(100, 131))
    chosen = fitted_half(ids)
    assert chosen.sum() == 16
    backwards = fitted_half(ids[::-1])
    assert np.array_equal(chosen, backwards[::-1])
    assert fitted_half(["one"]).tolist() == [True]


def test_table_before_and_after():
    # 0.9 comes true in 3 of 4 in each image of these: D-ECE 0.15 before, 0 behind T = 2; NLL by hand
    content, results = data_set(40)
    truth = read_ground_truth(content)
    lines = before_and_after(truth, read_detections(results, truth), Temperature(2.0)).splitlines()
    before, after, change = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
    nll = {score: -(0.75 * math.log(score) + 0.25 * math.log(1 - score)) for score in (0.9, 0.75)}
    assert before[:2] == ["before", "40"] and after[:2] == ["after", "40"]
    assert before[2].startswith(f"{nll[0.9]:.4f} [") and after[2].startswith(f"{nll[0.75]:.4f} [")
    assert before[3].startswith("0.1500 [") and after[3].startswith("0.0000 [")
    assert change[3].startswith("-0.1500 [-") and change[1] == ""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Runs tools/fit_calibrator.py on `data_set` with more arguments."""
    for name, content in zip(("gt.json", "dt.json"), data_set(400), strict=True):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "other.json").write_text(json.dumps([{**data_set()[1][0], "score": 0.8}]))

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fit_calibrator.py", "gt.json", "dt.json", *arguments])
        runpy.run_path(str(Path(__file__).parents[3] / "tools" / "fit_calibrator.py"), run_name="__main__")

    return run


def test_tool_fits_reports_and_applies(tool, tmp_path, capfd):
    tool("--apply", "other.json", "--output", "scaled.json")
    printed = capfd.readouterr()
    assert "temperature 2.0000" in printed.out
    assert "temperature, fitted to 200 images, on 200 others" in printed.out and "| difference |" in printed.out
    assert load(tmp_path / "calibrator.json").temperature == pytest.approx(2.0, abs=1e-6)
    (result,) = json.loads((tmp_path / "scaled.json").read_text())
    assert result["score"] == pytest.approx(2 / 3, abs=1e-6) and result["score_before"] == 0.8
    assert "warning" not in printed.err


def test_tool_class_wise_to_the_iou(tool, tmp_path, capfd):
    tool(*["--method", "isotonic", "--class-wise", "--target", "iou", "--n-min", "500", "--calibrator", "mine.json"])
    assert "1 of 1 classes have less than 500 detections and share the fit of all: thing" in capfd.readouterr().out
    assert torch.equal(load(tmp_path / "mine.json")(torch.tensor([0.9]), torch.tensor([0])), torch.tensor([0.75]))


@pytest.mark.parametrize(
    ("arguments", "images", "sentence"),
    [
        (["--apply", "dt.json", "--output", "out.json"], 400, "400 detections of dt.json are fitted to as well"),
        ([], 40, "of 40 detections 30 are hits; with so few of a kind the fit is a guess"),
        ([], 1, "one half of the images has no detections, so that nothing is measured"),
        (["--method", "linear"], 400, "a slope is at its bound"),
    ],
)
def test_tool_warns(tool, tmp_path, arguments, images, sentence, capfd):
    for name, content in zip(("gt.json", "dt.json"), data_set(images), strict=True):
        (tmp_path / name).write_text(json.dumps(content))
    tool(*arguments)
    assert f"warning: {sentence}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--iou", "1.5"], "iou_thresholds must lie in"),
        (["--score-threshold", "0.95"], "score is empty: there are no samples to fit a calibrator to"),
        (["--apply", "gt.json"], "gt.json must hold a list of detections"),
        (["--apply", "unscored.json"], "unscored.json: detections[0] has no 'score'"),
        (["--apply", "logits.json"], "logits.json: detections[0] has the score 2.0"),
        (["--apply", "other.json", "--output", "."], ".: Is a directory"),
    ],
)
def test_tool_ends_in_one_sentence(tool, tmp_path, arguments, sentence, capfd):
    (tmp_path / "unscored.json").write_text('[{"image_id": 1}]')
    (tmp_path / "logits.json").write_text('[{"image_id": 1, "score": 2}]')
    if "--apply" in arguments and "--output" not in arguments:
        arguments = [*arguments, "--output", "out.json"]
    with pytest.raises(SystemExit) as stop:
        tool(*arguments)
    assert stop.value.code == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1 and errors[0].startswith("error: ") and sentence in errors[0]
    assert not (tmp_path / "out.json").exists()
