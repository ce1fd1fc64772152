"""Calibration: does a confidence of 0.8 come true eight times in ten?

Shapes: N samples, C classes, K bins, G groups (classes, or anything else that gets bins of its own).

Predictions are sorted into K equal bins of confidence on [0, 1]. What is kept of them are sums per bin, as integers
(see exact_sums.py), so that the sums of shards and ranks add up to exactly those of one pass. Every metric is a
function of these sums.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..catalog import FORMAT
from ..checks import (
    Edges,
    check_edges,
    check_labels,
    check_positive_int,
    check_same_shape,
    check_unit_interval,
    warn_undefined,
)
from ..errors import UserError
from ..io.strict_json import read_json, strict_json
from ..streaming.chunks import CHUNK
from ..streaming.exact_sums import from_limbs, group_counts, group_sums, whole_limbs

FINE_BINS = 1024  # at the least


@dataclass(frozen=True, eq=False)
class BinStatistics:
    """What the K bins hold, in float64 but for the counts; leading dimensions are groups.

    count: number of predictions (..., K), int64.
    confidence: sum of their confidences (..., K).
    success: sum of their successes (..., K).
    """

    count: Tensor
    confidence: Tensor
    success: Tensor

    @property
    def mean_confidence(self) -> Tensor:
        """conf_k (..., K); NaN in an empty bin."""
        return self.confidence / self.count

    @property
    def success_frequency(self) -> Tensor:
        """freq_k (..., K); NaN in an empty bin."""
        return self.success / self.count

    @property
    def gap(self) -> Tensor:
        """freq_k - conf_k (..., K), 0 in an empty bin; positive where the predictor is underconfident."""
        return (self.success - self.confidence) / self.count.clamp(min=1)

    @classmethod
    def from_sums(cls, sums: Tensor) -> "BinStatistics":
        """From the int64 sums (5, ..., K) of `bin_sums`."""
        return cls(count=sums[0], confidence=from_limbs(sums[1:3]), success=from_limbs(sums[3:5]))


def bin_edges(num_bins: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The num_bins + 1 edges k/K, rounded to `dtype`."""
    return (torch.arange(num_bins + 1, dtype=torch.float64) / num_bins).to(dtype)


def bin_index(confidence: Tensor, num_bins: int, edges: Edges = "right") -> Tensor:
    """The bin (N,) int64 in [0, K) of each `confidence` (N,) in [0, 1].

    `edges="right"`: bin k is (k/K, (k+1)/K], and 0 is in bin 0. `edges="left"`: bin k is [k/K, (k+1)/K), and 1 is in
    bin K-1. Edges are rounded to the dtype of `confidence`, so that 0.3 lies on the edge 3/10 in every dtype.
    """
    check_edges(edges)
    if confidence.dtype not in (torch.float32, torch.float64):
        # so coarse that neighbouring edges may round to the same number
        grid = bin_edges(num_bins, confidence.dtype).to(confidence.device)
        return torch.bucketize(confidence.float(), grid[1:-1].float(), right=edges == "left")
    # the product may be off by a rounding error, but the edge nearest to it cannot be: one comparison decides
    nearest = (confidence * num_bins).round_()
    edge = nearest / num_bins  # correctly rounded, which `bin_edges` is, too
    below = confidence <= edge if edges == "right" else confidence < edge
    return nearest.sub_(below.to(nearest.dtype)).clamp_(0, num_bins - 1).long()


def fine_bins(num_bins: int) -> int:
    """The number of bins that are counted, so that metrics may merge them: K times as many as make a thousand."""
    return num_bins * -(-FINE_BINS // num_bins)


def merge_bins(sums: Tensor, num_bins: int) -> Tensor:
    """The sums (5, ..., K) of K bins from those of a multiple of K; exact, as every edge of the K is one of theirs."""
    return sums.unflatten(-1, (num_bins, -1)).sum(-1)


def bin_sums(
    confidence: Tensor,
    success: Tensor,
    num_bins: int = 15,
    edges: Edges = "right",
    group: Tensor | None = None,
    num_groups: int | None = None,
) -> Tensor:
    """Sums per bin of count, confidence and success: int64 (5, K), or (5, G, K) with groups; they may be added.

    Args:
        confidence: (N,) in [0, 1].
        success: (N,) bool, or floats in [0, 1] for partial success (an IoU, say).
        num_bins: K.
        edges: which edge belongs to a bin, see `bin_index`.
        group: (N,) integers in [0, G): each group gets K bins of its own.
        num_groups: G, needed with `group`.
    """
    check_positive_int("num_bins", num_bins)
    check_unit_interval("confidence", confidence)
    check_same_shape("confidence", confidence, "success", success)
    if success.dtype != torch.bool:
        if not success.is_floating_point():
            raise ValueError(f"success must be bool or floating point, got {success.dtype}")
        check_unit_interval("success", success)
    cells = num_bins
    if group is not None:
        check_positive_int("num_groups", num_groups)
        check_same_shape("confidence", confidence, "group", group)
        check_labels("group", group, num_groups)
        cells = num_groups * num_bins

    sums = torch.zeros(5, cells, dtype=torch.int64, device=confidence.device)
    confidence, success = confidence.detach().flatten(), success.flatten()
    for start in range(0, len(confidence), CHUNK):
        chunk = slice(start, start + CHUNK)
        index = bin_index(confidence[chunk], num_bins, edges)
        if group is not None:
            index += group.flatten()[chunk].long() * num_bins
        sums += cell_sums(index, cells, confidence[chunk], success[chunk])
    return sums if group is None else sums.view(5, num_groups, num_bins)


def cell_sums(cell: Tensor, num_cells: int, confidence: Tensor, success: Tensor) -> Tensor:
    """Sums (5, num_cells) int64 as of `bin_sums`, given the `cell` (N,) int64 of each prediction; unchecked."""
    if success.dtype != torch.bool:
        counts, successes = group_counts(cell, num_cells), group_sums(success, cell, num_cells)
    else:  # counts of misses and hits are all there is to know
        misses, hits = group_counts(cell.int().mul_(2).add_(success), 2 * num_cells).view(num_cells, 2).T
        counts, successes = misses + hits, whole_limbs(hits)
    return torch.cat((counts.unsqueeze(0), group_sums(confidence, cell, num_cells), successes))


def bin_statistics(
    confidence: Tensor,
    success: Tensor,
    num_bins: int = 15,
    edges: Edges = "right",
    group: Tensor | None = None,
    num_groups: int | None = None,
) -> BinStatistics:
    """`BinStatistics` of K bins, or of (G, K) with groups. Arguments as `bin_sums`."""
    return BinStatistics.from_sums(bin_sums(confidence, success, num_bins, edges, group, num_groups))


def _weights(bins: BinStatistics, name: str) -> Tensor:
    total = bins.count.sum(-1, keepdim=True)
    if (total == 0).any():
        warn_undefined(name, "there are no samples")
    return bins.count.double() / total


BinMetric = Callable[[BinStatistics], Tensor]
BIN_METRICS: dict[str, BinMetric] = {}
FINE_BIN_METRICS: dict[str, Callable[[BinStatistics, int], Tensor]] = {}


def bin_metric(function: BinMetric) -> BinMetric:
    """Have all that measures bins compute this function of K bins, too; `catalog` declares what people read of it."""
    BIN_METRICS[function.__name__] = function
    return function


def fine_bin_metric(function: Callable[[BinStatistics, int], Tensor]) -> Callable[[BinStatistics, int], Tensor]:
    """As `bin_metric`, for a function of `fine_bins` and of the number of those that people see, K."""
    FINE_BIN_METRICS[function.__name__] = function
    return function


def bin_metrics(fine_sums: Tensor, num_bins: int) -> dict[str, Tensor]:
    """Every metric of bins by name, float64 (...), from the int64 sums (5, ..., F) of F = `fine_bins(num_bins)`."""
    fine = BinStatistics.from_sums(fine_sums)
    bins = BinStatistics.from_sums(merge_bins(fine_sums, num_bins))
    values = {name: metric(bins) for name, metric in BIN_METRICS.items()}
    return values | {name: metric(fine, num_bins) for name, metric in FINE_BIN_METRICS.items()}


@bin_metric
def ece(bins: BinStatistics) -> Tensor:
    """Expected calibration error, sum_k n_k/N · |freq_k - conf_k|: float64 (...)."""
    return (_weights(bins, "ECE") * bins.gap.abs()).sum(-1)


@bin_metric
def msce(bins: BinStatistics) -> Tensor:
    """Mean squared calibration error, sum_k n_k/N · (freq_k - conf_k)² (DDN eq. 15): float64 (...)."""
    return (_weights(bins, "MSCE") * bins.gap.square()).sum(-1)


@bin_metric
def mce(bins: BinStatistics) -> Tensor:
    """Maximum calibration error, max_k |freq_k - conf_k|: float64 (...)."""
    empty = bins.count.sum(-1) == 0
    if empty.any():
        warn_undefined("MCE", "there are no samples")
    return bins.gap.abs().amax(-1).masked_fill(empty, math.nan)


@bin_metric
def mce_squared(bins: BinStatistics) -> Tensor:
    """Maximum calibration error as the DDN paper squares it, max_k (freq_k - conf_k)²: float64 (...)."""
    return mce(bins).square()


@fine_bin_metric
def adaptive_ece(bins: BinStatistics, num_groups: int = 15) -> Tensor:
    """ECE over groups of equally many samples (Nguyen and O'Connor 2015) instead of equally wide bins: float64 (...).

    Group k holds what is between k N/G and (k + 1) N/G in the order of confidence. The order inside a bin is not known
    any more, so that a bin across a limit gives to both sides what it holds on average; where the samples of each bin
    are ties, nothing is lost. Else the result is off by at most the sum, over the bins that a limit cuts, of
    (2 min(hits, misses) + count · width) / N.

    Args:
        bins: finer ones than there are groups, (..., F).
        num_groups: G.
    """
    total = bins.count.sum(-1, keepdim=True)
    if (total == 0).any():
        warn_undefined("adaptive ECE", "there are no samples")
    count = bins.count.cumsum(-1).double()
    limit = total * torch.arange(1, num_groups, device=total.device, dtype=torch.float64) / num_groups  # (..., G - 1)
    cut = torch.searchsorted(count, limit)  # the bin that holds each limit
    excess = bins.success - bins.confidence  # (..., F)
    above = (count.gather(-1, cut) - limit) / bins.count.gather(-1, cut)  # its share above the limit
    below = excess.cumsum(-1).gather(-1, cut) - above * excess.gather(-1, cut)
    below = torch.cat((torch.zeros_like(excess[..., :1]), below, excess.sum(-1, keepdim=True)), -1)  # (..., G + 1)
    return below.diff().abs().sum(-1) / total.squeeze(-1)


def class_wise_ece(bins: BinStatistics) -> Tensor:
    """Mean over classes of the ECE of p_c against "the label is c": float64 scalar.

    Args:
        bins: statistics (C, K) of the probability of each class over *all* samples.
    """
    return ece(bins).mean()


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """A finished measurement: every number of every bin, and scores that do not come from these.

    `str()` gives a table, `to_json` / `from_json` keep every bit.
    """

    bins: BinStatistics  # of shape (K,)
    edges: Edges = "right"
    scores: dict[str, float] = field(default_factory=dict)  # "accuracy", "brier", ...; metrics of the bins are left out

    def __post_init__(self) -> None:
        object.__setattr__(self, "bins", BinStatistics(*(t.cpu() for t in vars(self.bins).values())))
        scores = {name: float(value) for name, value in self.scores.items() if name not in BIN_METRICS}
        object.__setattr__(self, "scores", scores)

    @property
    def num_bins(self) -> int:
        """K."""
        return len(self.bins.count)

    @property
    def num_samples(self) -> int:
        """N."""
        return int(self.bins.count.sum())

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric of bins and all scores, by name; plain values, not percent."""
        return {name: metric(self.bins).item() for name, metric in BIN_METRICS.items()} | self.scores

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CalibrationResult) and self.to_json() == other.to_json()

    __hash__ = None

    def __str__(self) -> str:
        opening, closing = ("(", "]") if self.edges == "right" else ("[", ")")
        limits = bin_edges(self.num_bins).tolist()
        rows = [f"{'confidence bin':>16}  {'count':>10}  {'confidence':>10}  {'success':>8}  {'gap':>8}"]
        for k, count in enumerate(self.bins.count.tolist()):
            left = "[" if k == 0 else opening
            right = "]" if k == self.num_bins - 1 else closing
            name = f"{left}{limits[k]:.3f}, {limits[k + 1]:.3f}{right}"
            if count:
                conf, freq = self.bins.mean_confidence[k].item(), self.bins.success_frequency[k].item()
                rows.append(f"{name:>16}  {count:>10}  {conf:>10.4f}  {freq:>8.4f}  {freq - conf:>+8.4f}")
            else:
                rows.append(f"{name:>16}  {count:>10}  {'-':>10}  {'-':>8}  {'-':>8}")
        rows.append(f"samples {self.num_samples}")
        rows += [f"{name:<16} {value:.6f}" for name, value in self.metrics.items()]
        return "\n".join(rows)

    def to_json(self) -> str:
        """Strict JSON: a number that JSON lacks (NaN, infinity) is a string."""
        limits = bin_edges(self.num_bins).tolist()
        columns = zip(limits, limits[1:], *(t.tolist() for t in vars(self.bins).values()), strict=False)
        names = ("lower", "upper", "count", "confidence_sum", "success_sum")
        content = {
            "format": FORMAT,
            "edges": self.edges,
            "num_samples": self.num_samples,
            "metrics": self.metrics,
            "scores": list(self.scores),
            "bins": [dict(zip(names, column, strict=True)) for column in columns],
        }
        return strict_json(content)

    @classmethod
    def from_json(cls, text: str) -> "CalibrationResult":
        """The result that `to_json` wrote; raises UserError where anything else was written."""
        try:
            content = read_json(text)
            found = content.get("format", 1)
            if found != FORMAT:
                raise UserError(
                    f"this calibration result has format {found}, and format {FORMAT} is read: measure again"
                )
            column = {
                name: [row[name] for row in content["bins"]] for name in ("count", "confidence_sum", "success_sum")
            }
            bins = BinStatistics(
                count=torch.tensor(column["count"], dtype=torch.int64),
                confidence=torch.tensor(column["confidence_sum"], dtype=torch.float64),
                success=torch.tensor(column["success_sum"], dtype=torch.float64),
            )
            scores = {name: float(content["metrics"][name]) for name in content["scores"]}
            return cls(bins=bins, edges=content["edges"], scores=scores)
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(f"this calibration result is damaged ({error}): measure again") from None
