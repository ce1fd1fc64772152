"""Temperature scaling of detection scores."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty_core.detection import read_detections, read_ground_truth
from uncertainty_core.detection.temperature import fit_temperature, fit_to_detections, scale_scores


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


def test_tool_fits_and_applies(tmp_path, capsys):
    import runpy
    from pathlib import Path

    tool = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "fit_temperature.py"))["main"]
    for name, content in zip(("gt.json", "dt.json"), data_set(), strict=True):
        (tmp_path / name).write_text(json.dumps(content))
    files = [str(tmp_path / name) for name in ("gt.json", "dt.json")]
    scaled = tmp_path / "scaled.json"
    assert tool([*files, "--apply", files[1], "--output", str(scaled)]) == 0
    assert "temperature 2.0000" in capsys.readouterr().out
    assert [result["score"] for result in json.loads(scaled.read_text())] == pytest.approx([0.75] * 4, abs=1e-6)
    assert tool([files[0], str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
