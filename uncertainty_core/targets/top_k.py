"""Distributions in a few bytes: their k largest probabilities and what is left, 16 bits for each of the k.

An entry is 256 · amount + class. Its class is that of the i-th largest probability p_i. The amount of the first is the
rest 1 - p_1 - ... - p_k, that of the others p_i; p_1 is what they leave. An amount is round(255 · sqrt(p)), at
least 1: on this scale a step costs small and large probabilities the same KL, 2 · (1/510)² = 7.7e-6 at most.

Shapes: N samples, C classes, k entries, `...` any further dimensions (pixels).
"""

import torch
from torch import Tensor

from ..checks import check_distribution, check_positive_int

MOST_CLASSES = 256
_STEPS = 255


def encode_top_k(probabilities: Tensor, k: int) -> Tensor:
    """Codes (N, min(k, C), ...) uint16, 256 or more each, of `probabilities` (N, C, ...)."""
    check_distribution("probabilities", probabilities)
    check_positive_int("k", k)
    if probabilities.shape[1] > MOST_CLASSES:
        raise ValueError(f"top-k codes hold {MOST_CLASSES} classes, got {probabilities.shape[1]}")
    largest, classes = probabilities.double().topk(min(k, probabilities.shape[1]), dim=1)
    rest = (1 - largest.sum(1, keepdim=True)).clamp(min=0)
    amounts = (_STEPS * torch.cat((rest, largest[:, 1:]), dim=1).sqrt()).round().clamp(min=1)
    return (256 * amounts.int() + classes.int()).to(torch.uint16)


def decode_top_k(codes: Tensor, num_classes: int) -> Tensor:
    """The distributions (N, C, ...) float32 of `codes` (N, k, ...), integer; the rest is spread evenly.

    Args:
        codes: what `encode_top_k` gave; any number below 256 stands for none, and gives a distribution of no meaning.
        num_classes: C.
    """
    codes = codes.int()
    classes, amounts = (codes % 256).clamp(max=num_classes - 1).long(), (codes // 256 / _STEPS).square()
    others = num_classes - codes.shape[1]
    rest = amounts[:, :1] / max(others, 1)
    smaller = amounts[:, 1:]
    first = 1 - others * rest - smaller.sum(1, keepdim=True)
    # of nearly even distributions it is the smallest of numbers that are each a little off
    first = first.maximum(smaller[:, :1] if smaller.shape[1] else rest)
    spread = rest if others else torch.zeros_like(rest)
    found = spread.expand(-1, num_classes, *spread.shape[2:]).scatter(1, classes, torch.cat((first, smaller), dim=1))
    return found / found.sum(1, keepdim=True)
