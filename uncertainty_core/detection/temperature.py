"""Temperature scaling of detection scores: the post-hoc rival of distillation, one number fitted on a validation set.

A score s becomes sigmoid(logit(s) / T). The order of the detections stays, and with it every AP. Which detections count
is decided by their scores before, else a T below 1 would improve the numbers by hiding detections.

Shapes: D detections.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import check_same_shape, check_unit_interval
from .coco_format import Detections, GroundTruth, read_scores
from .evaluation import match_images
from .matching import IGNORED, TRUE_POSITIVE
from .settings import Settings

# 1/T lies between these; where the scores know nothing, or everything, no finite T is the best one.
_LIMITS = 1e-3, 1e3


def scale_scores(score: Tensor, temperature: float) -> Tensor:
    """The scores (D,) with their log-odds divided by `temperature`."""
    check_unit_interval("score", score)
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return (score.double().logit() / temperature).sigmoid().to(score.dtype)


def scale_results(source: Sequence[dict[str, Any]] | str | Path, temperature: float) -> list[dict[str, Any]]:
    """COCO results, in a file or already read from one, with their scores scaled and the old ones as "score_before"."""
    results, score = read_scores(source)
    scaled = scale_scores(torch.from_numpy(score), temperature).tolist()
    return [
        {"score_before": result["score"], **result, "score": score}
        for result, score in zip(results, scaled, strict=True)
    ]


def fit_temperature(score: Tensor, success: Tensor) -> float:
    """The T with the least negative log-likelihood of `success` (D,) bool, given `score` (D,).

    The likelihood is that of a logistic regression on the log-odds alone: convex in 1/T, so its derivative changes sign
    once, and bisection finds where.
    """
    check_same_shape("score", score, "success", success)
    if not len(score):
        raise ValueError("score is empty: there are no detections to fit a temperature to")
    eps = torch.finfo(torch.float64).eps
    log_odds, label = score.double().logit(eps), success.double()
    low, high = (torch.tensor(limit, dtype=torch.float64).log() for limit in _LIMITS)
    for _ in range(60):
        middle = (low + high) / 2
        slope = (((log_odds * middle.exp()).sigmoid() - label) * log_odds).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return (-(low + high) / 2).exp().item()


def fit_to_detections(
    ground_truth: GroundTruth, detections: Detections, iou_threshold: float = 0.5, score_threshold: float = 0.05
) -> float:
    """The T for which scores tell best whether a detection is a true positive at `iou_threshold`."""
    settings = Settings((iou_threshold,), score_threshold=score_threshold)
    matched = match_images(ground_truth, detections, settings)
    score, outcome = matched.detections.score, matched.calibration_outcome[1]
    counts = (outcome != IGNORED) & (matched.detections.score_before >= score_threshold)
    return fit_temperature(torch.from_numpy(score[counts]), torch.from_numpy(outcome[counts] == TRUE_POSITIVE))
