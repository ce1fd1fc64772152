"""Slow, obvious definitions of every metric, as oracles for the tests.

They loop over single samples, sort plainly, and add up fractions, so that what they return is exact until the last
step. Nothing here shares code or a trick with the product. Tensors come in, Python numbers and lists go out.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def fractions(values: Tensor) -> list[Fraction]:
    """The exact value of every element; False and True are 0 and 1."""
    return [Fraction(value) for value in values.flatten().tolist()]


def decimal(value: float) -> Fraction:
    """What whoever wrote 0.55 meant: 55/100, not the nearest float."""
    return Fraction(repr(value))


# Bins


class Bin(NamedTuple):
    """One bin: number of predictions, exact sums of their confidences and successes."""

    count: int
    confidence: Fraction
    success: Fraction


def edge_values(num_bins: int, dtype: torch.dtype) -> list[float]:
    """The edges k/K, each rounded to `dtype`."""
    return [torch.tensor(k / num_bins, dtype=torch.float64).to(dtype).item() for k in range(num_bins + 1)]


def bin_by_loop(value: float, limits: list[float], edges: str) -> int:
    """The bin of one value: walk through all bins until one contains it."""
    last = len(limits) - 2
    for k in range(last + 1):
        lower, upper = limits[k], limits[k + 1]
        if edges == "right" and (lower < value <= upper or (k == 0 and value == 0)):
            return k
        if edges == "left" and (lower <= value < upper or (k == last and value == 1)):
            return k
    raise AssertionError(f"{value} is in no bin")


def bins_by_loop(confidence: Tensor, success: Tensor, num_bins: int, edges: str) -> list[Bin]:
    """All K bins of `confidence` (N,) and `success` (N,)."""
    limits = edge_values(num_bins, confidence.dtype)
    bins = [Bin(0, Fraction(0), Fraction(0))] * num_bins
    for value, conf, hit in zip(confidence.tolist(), fractions(confidence), fractions(success), strict=True):
        k = bin_by_loop(value, limits, edges)
        bins[k] = Bin(bins[k].count + 1, bins[k].confidence + conf, bins[k].success + hit)
    return bins


def _gaps(bins: list[Bin]) -> list[tuple[Fraction, Fraction]]:
    """(share of all predictions, freq_k - conf_k) of each bin that is not empty."""
    total = sum(b.count for b in bins)
    return [(Fraction(b.count, total), b.success / b.count - b.confidence / b.count) for b in bins if b.count]


def ece(bins: list[Bin]) -> float:
    """sum n_k/N · |freq_k - conf_k|"""
    gaps = _gaps(bins)
    return float(sum(share * abs(gap) for share, gap in gaps)) if gaps else math.nan


def msce(bins: list[Bin]) -> float:
    """sum n_k/N · (freq_k - conf_k)²"""
    gaps = _gaps(bins)
    return float(sum(share * gap**2 for share, gap in gaps)) if gaps else math.nan


def mce(bins: list[Bin]) -> float:
    """max |freq_k - conf_k|"""
    gaps = _gaps(bins)
    return float(max(abs(gap) for _, gap in gaps)) if gaps else math.nan


def mce_squared(bins: list[Bin]) -> float:
    """max (freq_k - conf_k)²"""
    gaps = _gaps(bins)
    return float(max(gap**2 for _, gap in gaps)) if gaps else math.nan


def adaptive_ece(confidence: Tensor, success: Tensor, num_groups: int) -> Fraction:
    """sum_k |successes - confidences| of groups of equal mass / N; ties are shared evenly where groups meet in them."""
    tied: dict[Fraction, list[Fraction]] = {}
    for conf, hit in sorted(zip(fractions(confidence), fractions(success), strict=True)):
        tied.setdefault(conf, []).append(hit)
    size, excess, start = Fraction(len(confidence), num_groups), [Fraction(0)] * num_groups, 0
    for conf, hits in tied.items():
        end = start + len(hits)
        for k in range(num_groups):
            inside = max(Fraction(0), min(Fraction(end), (k + 1) * size) - max(Fraction(start), k * size))
            excess[k] += inside * (Fraction(sum(hits), len(hits)) - conf)
        start = end
    return sum(map(abs, excess)) / len(confidence)


def adaptive_ece_bound(bins: list[Bin], num_groups: int) -> Fraction:
    """How far that of bins may be from that of their samples: sum of what each bin adds in which groups meet."""
    total, bound, start = sum(b.count for b in bins), Fraction(0), 0
    for b in bins:
        if any(start < Fraction(k * total, num_groups) < start + b.count for k in range(1, num_groups)):
            bound += 2 * min(b.success, b.count - b.success) + Fraction(b.count, len(bins))
        start += b.count
    return bound / total


def class_wise_ece(probabilities: Tensor, labels: Tensor, num_bins: int, edges: str) -> float:
    """Mean over classes of the ECE of one column (N, C) against "the label is this class"."""
    per_class = [
        ece(bins_by_loop(probabilities[:, c], labels == c, num_bins, edges)) for c in range(probabilities.shape[1])
    ]
    return sum(per_class) / len(per_class)


# Scores of single predictions, one Python float per row of probabilities (N, C)


def confidence_and_prediction(row: list[float]) -> tuple[float, int]:
    """The largest probability and the first class that has it."""
    best = 0
    for c, p in enumerate(row):
        if p > row[best]:
            best = c
    return row[best], best


def minus_log(p: float) -> float:
    """-log p, infinite at 0."""
    return math.inf if p == 0 else -math.log(p)


def brier(row: list[float], label: int) -> float:
    """sum_c (p_c - [c is the label])²"""
    return float(sum((Fraction(p) - (c == label)) ** 2 for c, p in enumerate(row)))


def nll_true(row: list[float], label: int) -> float:
    """-log of the probability of the label."""
    return minus_log(row[label])


def nll_pred(row: list[float]) -> float:
    """-log of the largest probability."""
    return minus_log(max(row))


def entropy(row: list[float]) -> float:
    """-sum p log p, where 0 log 0 is 0."""
    return math.fsum(-p * math.log(p) for p in row if p > 0)


def accuracy(row: list[float], label: int) -> float:
    """1 if the predicted class is the label."""
    return float(confidence_and_prediction(row)[1] == label)


def mean(values: list[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def mupe(teacher: Tensor, student: Tensor) -> float:
    """Mean of (teacher - student)²."""
    squares = [(t - s) ** 2 for t, s in zip(fractions(teacher), fractions(student), strict=True)]
    return float(sum(squares) / len(squares))


def group_mean(values: Tensor, group: Tensor, num_groups: int) -> list[float]:
    """Mean of the values of each group; NaN where there are none."""
    members = [[v for v, g in zip(fractions(values), group.tolist(), strict=True) if g == k] for k in range(num_groups)]
    return [float(sum(m) / len(m)) if m else math.nan for m in members]


# Rankings: lists of levels and events, one entry per sample; equal levels are tied


def risk_coverage(level: list[float], error: list[bool]) -> tuple[list[float], list[float]]:
    """Coverage and error rate of the samples up to each distinct level."""
    coverage, risk = [], []
    for limit in sorted(set(level)):
        covered = [e for v, e in zip(level, error, strict=True) if v <= limit]
        coverage.append(len(covered) / len(level))
        risk.append(sum(covered) / len(covered))
    return coverage, risk


def aurc(level: list[float], error: list[bool]) -> float:
    """Mean over n of the expected error rate of the n most certain, tied samples in random order."""
    total, before, wrong = Fraction(0), 0, Fraction(0)
    for value in sorted(set(level)):
        tied = [e for v, e in zip(level, error, strict=True) if v == value]
        for _ in tied:  # each of the tied samples is equally likely to come next
            before += 1
            wrong += Fraction(sum(tied), len(tied))
            total += wrong / before
    return float(total / len(level))


def auroc(level: list[float], event: list[bool]) -> float:
    """Share of (event, non-event) pairs in which the event is more uncertain, a tie counting half."""
    positive = [v for v, e in zip(level, event, strict=True) if e]
    negative = [v for v, e in zip(level, event, strict=True) if not e]
    if not positive or not negative:
        return math.nan
    wins = sum(Fraction(1) if p > n else Fraction(1, 2) if p == n else Fraction(0) for p in positive for n in negative)
    return float(wins / (len(positive) * len(negative)))


def average_precision(level: list[float], event: list[bool]) -> float:
    """Sum over falling thresholds of precision times the gain in recall."""
    if not any(event) or all(event):
        return math.nan
    total, recall = Fraction(0), Fraction(0)
    for threshold in sorted(set(level), reverse=True):
        found = [e for v, e in zip(level, event, strict=True) if v >= threshold]
        now = Fraction(sum(found), sum(event))
        total += (now - recall) * Fraction(sum(found), len(found))
        recall = now
    return float(total)


def fpr_at_tpr(level: list[float], event: list[bool], tpr: float) -> float:
    """False positive rate at the highest threshold that finds the share `tpr` of the events."""
    if not any(event) or all(event):
        return math.nan
    for threshold in sorted(set(level), reverse=True):
        found = [e for v, e in zip(level, event, strict=True) if v >= threshold]
        if Fraction(sum(found), sum(event)) >= decimal(tpr):
            return float(Fraction(len(found) - sum(found), len(event) - sum(event)))
    raise AssertionError("the lowest threshold finds every event")


# Segmentation: lists of predicted and true classes and of uncertainties, one entry per pixel


def confusion_by_loop(prediction: list[int], label: list[int], num_classes: int) -> list[list[int]]:
    """matrix[true][predicted]"""
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for p, t in zip(prediction, label, strict=True):
        matrix[t][p] += 1
    return matrix


def mean_iou(confusion: list[list[int | Fraction]]) -> float:
    """Mean intersection over union of the classes that occur."""
    classes = range(len(confusion))
    per_class = []
    for c in classes:
        union = sum(confusion[c]) + sum(confusion[t][c] for t in classes) - confusion[c][c]
        if union:
            per_class.append(Fraction(confusion[c][c]) / Fraction(union))
    return float(sum(per_class) / len(per_class)) if per_class else math.nan


def sparsification_by_sort(
    prediction: list[int], label: list[int], uncertainty: list[float], num_classes: int, removed: list[float]
) -> list[float]:
    """mIoU without the most uncertain pixels: sort, drop the last. Needs whole numbers of pixels and no ties."""
    assert len(set(uncertainty)) == len(uncertainty)
    order = sorted(range(len(uncertainty)), key=lambda i: uncertainty[i])
    curve = []
    for share in removed:
        kept = (1 - decimal(share)) * len(order)
        assert kept.denominator == 1
        left = order[: int(kept)]
        curve.append(mean_iou(confusion_by_loop([prediction[i] for i in left], [label[i] for i in left], num_classes)))
    return curve


def sparsification_with_ties(
    prediction: list[int], label: list[int], level: list[float], num_classes: int, removed: list[float]
) -> list[float]:
    """The same where pixels tie: a level that is removed in part leaves the same share of each of its pixels."""
    curve = []
    for share in removed:
        left = (1 - decimal(share)) * len(level)
        matrix = [[Fraction(0)] * num_classes for _ in range(num_classes)]
        for value in sorted(set(level)):
            pixels = [i for i, v in enumerate(level) if v == value]
            weight = min(Fraction(1), left / len(pixels))
            for i in pixels:
                matrix[label[i]][prediction[i]] += weight
            left = max(Fraction(0), left - len(pixels))
        curve.append(mean_iou(matrix))
    return curve


def sparsification_oracle(
    prediction: list[int], label: list[int], num_classes: int, removed: list[float]
) -> list[float]:
    """The best possible curve: right pixels are certain, wrong ones uncertain."""
    wrong = [float(p != t) for p, t in zip(prediction, label, strict=True)]
    return sparsification_with_ties(prediction, label, wrong, num_classes, removed)


def ause(curve: list[float], oracle: list[float], removed: list[float]) -> float:
    """Area between two curves, trapezoid by trapezoid."""
    gap = [o - c for o, c in zip(oracle, curve, strict=True)]
    return math.fsum((removed[q + 1] - removed[q]) * (gap[q] + gap[q + 1]) / 2 for q in range(len(gap) - 1))


def overconfident_probabilities(n: int = 600, num_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overconfident probabilities (N, C) and labels."""
    random = np.random.RandomState(seed)
    true = random.dirichlet([0.7] * num_classes, n)
    labels = (random.uniform(size=(n, 1)) > true.cumsum(1)).sum(1).clip(max=num_classes - 1)
    sharp = true**1.6 * np.linspace(0.6, 1.4, num_classes)
    return torch.from_numpy(sharp / sharp.sum(1, keepdims=True)), torch.from_numpy(labels)
