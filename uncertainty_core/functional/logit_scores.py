"""Scores of single predictions from logits: those of their softmax, which is never made.

An image has tens of millions of logits. Everything here works on pieces (`pieces`) that stay in the cache, in a few
passes over all classes.

Shapes: N samples, C classes, `...` any further dimensions (pixels), n x m samples of a piece.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..streaming.chunks import pieces
from ..streaming.dtypes import at_least_float32
from .scores import SampleScores, of_class


def check_logits(logits: Tensor) -> None:
    """Raise ValueError unless the largest logit (N, C, ...) of every sample is finite, which NaN never is."""
    top = logits.amax(1)
    if not top.isfinite().all():
        index = tuple((~top.isfinite()).nonzero()[0].tolist())
        where = ", ".join(map(str, (index[0], ":", *index[1:])))
        raise ValueError(f"the largest logit must be finite, but that of logits[{where}] is {top[index].item()}")


def logit_scores(
    logits: Tensor, labels: Tensor, success: Tensor | None = None, with_entropy: bool = True
) -> SampleScores:
    """`sample_scores` of the softmax of `logits` (n, C, m) and int64 `labels` (n, m), unchecked.

    A sample whose largest logit is not finite has scores of NaN.

    Args:
        logits, labels: of a piece.
        success: whether the prediction is the label (n, m), if that is known.
        with_entropy: what nobody asks for need not be computed: None instead.
    """
    true_gap, total, squares, *entropy_sums = _class_sums(logits, labels, with_entropy)
    if success is None:
        success = true_gap == 0
        # two classes at the top make 2 of the squares; argmax for all would take a hundred times as long as amax
        may_tie = success & (squares >= 2)
        if may_tie.any():
            success[may_tie] = logits.movedim(1, -1)[may_tie].argmax(1) == labels[may_tie]
    confidence, log_total = total.reciprocal(), total.log_()
    true = true_gap.exp().mul_(confidence)
    others = squares.mul_(confidence).mul_(confidence).addcmul_(true, true, value=-1).clamp_(min=0)
    miss = true.neg_().add_(1)
    return SampleScores(
        confidence=confidence,
        success=success,
        brier=others.addcmul_(miss, miss),
        nll_true=log_total - true_gap,
        nll_pred=log_total,
        entropy=log_total - entropy_sums[0].mul_(confidence) if with_entropy else None,
    )


def _class_sums(logits: Tensor, labels: Tensor, with_entropy: bool) -> list[Tensor]:
    """What the scores need of all classes, (n, m) each: the gap between the true class and the largest logit, and over
    weights exp(gap) their sum, that of their squares, and `with_entropy` that of their products with the gap."""
    empty = at_least_float32(logits.new_empty(labels.shape))
    results = [torch.empty_like(empty) for _ in range(3 + with_entropy)]
    for piece, label, true_gap, total, squares, *entropy_sum in pieces(logits, labels, *results):
        piece = at_least_float32(piece)
        top = piece.amax(1)
        torch.sub(of_class(piece, label), top, out=true_gap)
        gap = _gap(piece, top)
        weight = gap.exp() if with_entropy else gap.exp_()
        squares.copy_(_fold(weight * weight))
        if with_entropy:
            entropy_sum[0].copy_(_fold(gap.mul_(weight)))
        total.copy_(_fold(weight))
    return results


def logit_confidence(logits: Tensor) -> Tensor:
    """Confidence (N, ...) of the softmax of `logits` (N, C, ...), in (0, 1]; NaN where no largest logit is finite."""
    return _by_piece(lambda gap: _fold(gap.exp_()).reciprocal_(), logits)


def logit_entropy(logits: Tensor) -> Tensor:
    """Entropy (N, ...) in nats of the softmax of `logits` (N, C, ...); NaN where no largest logit is finite."""
    return _by_piece(_entropy, logits)


def _entropy(gap: Tensor) -> Tensor:
    weight = gap.exp()
    weighted_gap, total = _fold(gap.mul_(weight)), _fold(weight)
    return total.log().sub_(weighted_gap.div_(total))


def _by_piece(function: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Values (N, ...) that `function` has for each piece's differences from the largest logit, (n, C, m)."""
    logits = logits.detach()
    values = at_least_float32(logits.new_empty(logits.shape[:1] + logits.shape[2:]))
    for piece, part in pieces(logits, values):
        piece = at_least_float32(piece)
        part.copy_(function(_gap(piece, piece.amax(1))))
    return values


def _gap(logits: Tensor, top: Tensor) -> Tensor:
    """Differences (n, C, m) of `logits` from the largest, `top` (n, m); bounded where weights add nothing to a sum.

    Products with infinite gaps would be NaN, and weights too small for normal numbers take ten times as long.
    """
    return (logits - top.unsqueeze(1)).clamp_(min=2 * math.log(torch.finfo(logits.dtype).eps))


def _fold(values: Tensor) -> Tensor:
    """Sum over classes (n, m) of `values` (n, C, m), which are lost: half upon half, an order of classes alone.

    torch's own order depends on the layout, and with it the last digit.
    """
    count = values.shape[1]
    while count > 1:
        half = count // 2
        values[:, :half].add_(values[:, count - half : count])
        count -= half
    return values[:, 0]
