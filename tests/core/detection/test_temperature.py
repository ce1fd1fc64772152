"""Temperature scaling of detection scores."""

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty_core.detection import Settings, evaluate, match_images, read_detections, read_ground_truth
from uncertainty_core.detection.temperature import fit_temperature, fit_to_detections, scale_results, scale_scores


def likelihood(score, success, temperature):
    """The negative log-likelihood, number by number."""
    total = 0.0
    for s, hit in zip(score.tolist(), success.tolist(), strict=True):
        log_odds = math.log(s / (1 - s)) / temperature * (1 if hit else -1)
        total += max(-log_odds, 0) + math.log1p(math.exp(-abs(log_odds)))  # -log sigmoid(log_odds)
    return total / len(score)


def test_scaled_score_by_hand():
    # the log-odds of 0.9 are log 9; half of them are log 3, whose probability is 3/4; 1/2 and the ends stay
    scaled = scale_scores(torch.tensor([0.9, 0.5, 0.0, 1.0], dtype=torch.float64), 2.0)
    torch.testing.assert_close(scaled, torch.tensor([0.75, 0.5, 0.0, 1.0], dtype=torch.float64))


def test_fit_by_hand():
    # scores of 0.9 that come true 3 times in 4: 0.75 is what T = 2 makes of 0.9, and nothing fits better
    score, success = torch.full((4,), 0.9), torch.tensor([True, True, True, False])
    assert fit_temperature(score, success) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_was_put_in(temperature):
    random = np.random.RandomState(0)
    true = torch.from_numpy(random.uniform(0.02, 0.98, 50_000))
    success = torch.from_numpy(random.uniform(size=50_000)) < true
    overconfident = scale_scores(true, 1 / temperature)
    assert fit_temperature(overconfident, success) == pytest.approx(temperature, rel=0.05)


@given(st.lists(st.tuples(st.floats(0.05, 0.95), st.booleans()), min_size=5, max_size=30), st.floats(-0.5, 0.5))
def test_no_other_temperature_is_better(pairs, shift):
    score, success = torch.tensor([s for s, _ in pairs], dtype=torch.float64), torch.tensor([h for _, h in pairs])
    best = fit_temperature(score, success)
    other = min(max(best * math.exp(shift), 1e-3), 1e3)
    assert likelihood(score, success, best) <= likelihood(score, success, other) + 1e-9


def test_order_stays():
    score = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(score.argsort(), scale_scores(score, 1.7).argsort())


def test_sure_and_wrong_is_finite():
    temperature = fit_temperature(torch.tensor([1.0, 0.0]), torch.tensor([False, True]))
    assert math.isfinite(temperature)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        scale_scores(torch.tensor([0.5]), temperature)


def test_nothing_to_fit():
    with pytest.raises(ValueError, match="no detections to fit"):
        fit_temperature(torch.zeros(0), torch.zeros(0, dtype=torch.bool))


def data_set():
    """Four images with one box each, found at 0.9 in three of them; in the last one the detection is elsewhere."""
    box = [10, 10, 20, 20]
    ground_truth = {
        "images": [{"id": k, "width": 100, "height": 100} for k in range(1, 5)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0} for k in range(1, 5)
        ],
    }
    detections = [
        {"image_id": k, "category_id": 1, "bbox": box if k < 4 else [60, 60, 20, 20], "score": 0.9} for k in range(1, 5)
    ]
    return ground_truth, detections


def test_fit_to_detections():
    content, results = data_set()
    # below the threshold a score says nothing, however wrong it is
    results.append({"image_id": 1, "category_id": 1, "bbox": [50, 50, 9, 9], "score": 0.01})
    ground_truth = read_ground_truth(content)
    assert fit_to_detections(ground_truth, read_detections(results, ground_truth)) == pytest.approx(2.0, abs=1e-6)


def measured(truth, results):
    truth = read_ground_truth(truth)
    return evaluate(truth, match_images(truth, read_detections(results, truth), Settings((0.5,))), Settings((0.5,)))


@pytest.mark.parametrize(("temperature", "error"), [(1, 0.1), (0.5, 1 / 82), (2, 0.25)])
def test_scaled_scores_count_where_the_scores_before_do(temperature, error):
    # Odds of 9 (a hit), 1/9 and 1/24 (two misses), that is scores of 0.9, 0.1 and 0.04, which does not count.
    # T = 1/2 squares the odds: 81/82 and 1/82, which lies below the threshold 0.05; T = 2 takes roots: 3/4, 1/4 and
    # 0.17, which lies above it. Hit and miss are as far off as each other: NLL is -log(1 - error), D-ECE error.
    content, (hit, *_) = data_set()
    content["annotations"] = content["annotations"][:1]
    results = [hit, *({**hit, "bbox": [60, 60, 20, 20], "score": score} for score in (0.1, 0.04))]
    evaluation = measured(content, scale_results(results, temperature))
    (at,) = evaluation.calibration
    assert at.result.num_samples == 2
    assert at.metrics["d_ece"] == pytest.approx(error)
    assert at.metrics["nll"] == pytest.approx(-math.log(1 - error))
    # twice scaled counts by the first scores
    assert (
        measured(content, scale_results(scale_results(results, temperature), 3)).calibration[0].result.num_samples == 2
    )


def test_scores_that_scaling_makes_equal_stay_in_order():
    # T = 1/100 rounds both to 1, and the miss stands first in the file: half the precision, but for the scores before
    content, (hit, *_) = data_set()
    content["annotations"] = content["annotations"][:1]
    results = scale_results([{**hit, "bbox": [60, 60, 20, 20], "score": 0.8}, hit], 0.01)
    assert [result["score"] for result in results] == [1, 1]
    assert measured(content, results).precision["AP"] == 100


@pytest.mark.parametrize(("temperature", "fitted"), [(0.5, 4.0), (4.0, 0.5)])
def test_fit_to_scaled_detections_counts_the_same(temperature, fitted):
    # 2 is what mends the scores as they were; what was divided by T wants 2 / T
    content, results = data_set()
    ground_truth = read_ground_truth(content)
    results.append({**results[0], "bbox": [50, 50, 9, 9], "score": 0.01})  # 0.24 once divided by 4
    scaled = read_detections(scale_results(results, temperature), ground_truth)
    assert fit_to_detections(ground_truth, scaled) == pytest.approx(fitted, abs=1e-6)


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Runs tools/fit_temperature.py on `data_set` with more arguments."""
    for name, content in zip(("gt.json", "dt.json"), data_set(), strict=True):
        (tmp_path / name).write_text(json.dumps(content))

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fit_temperature.py", "gt.json", "dt.json", *arguments])
        runpy.run_path(str(Path(__file__).parents[3] / "tools" / "fit_temperature.py"), run_name="__main__")

    return run


def test_tool_fits_and_applies(tool, tmp_path, capfd):
    scaled = tmp_path / "scaled.json"
    tool("--apply", "dt.json", "--output", str(scaled))
    assert "temperature 2.0000" in capfd.readouterr().out
    assert [result["score"] for result in json.loads(scaled.read_text())] == pytest.approx([0.75] * 4, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--iou", "1.5"], "iou_thresholds must lie in"),
        (["--score-threshold", "0.95"], "there are no detections to fit a temperature to"),
        (["--apply", "gt.json"], "gt.json must hold a list of detections"),
        (["--apply", "unscored.json"], "unscored.json: detections[0] has no 'score'"),
        (["--apply", "logits.json"], "logits.json: detections[0] has the score 2.0"),
        (["--apply", "dt.json", "--output", "."], ".: Is a directory"),
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
    error = capfd.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out.json").exists()
