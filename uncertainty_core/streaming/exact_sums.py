"""Sums of real numbers that do not depend on the order of their terms.

Floating-point addition is not associative, so a sum over shards or ranks differs in its last digits from a sum in one
pass. Here a number x in [0, 1024) becomes two integers, its 24 leading and its 24 following binary places:

    x = high * 2**-24 + low * 2**-48        (rounded down to 2**-48 = 3.6e-15)

Integer sums are exact in any order, also on a GPU, and int64 holds 2**39 terms of at most 1.
"""

import torch
from torch import Tensor

_LIMB = 2.0**24
LIMIT = 1024.0  # of the numbers


def to_limbs(values: Tensor) -> Tensor:
    """Split finite `values` (...) in [0, 1024) into int64 limbs (2, ...)."""
    return torch.stack([limb.long() for limb in _split(values)])


def total_limbs(values: Tensor) -> Tensor:
    """Summed limbs (2, ...) int64 of finite `values` (..., N) in [0, 1024)."""
    return torch.stack([limb.sum(-1, dtype=torch.int64) for limb in _split(values)])


def _split(values: Tensor) -> tuple[Tensor, Tensor]:
    """Limbs (...) that are whole numbers of a floating dtype."""
    if values.dtype != torch.float32:  # in which every step below is exact as well, at half the cost
        values = values.double()
    scaled = values * _LIMB
    high = scaled.floor()
    return high, scaled.sub_(high).mul_(_LIMB).floor_()


def whole_limbs(counts: Tensor) -> Tensor:
    """Limbs (2, ...) of whole numbers `counts` (...) int64."""
    return torch.stack((counts << 24, torch.zeros_like(counts)))


def from_limbs(limbs: Tensor) -> Tensor:
    """The float64 value (...) of summed int64 `limbs` (2, ...)."""
    high, low = limbs
    # carry first, so that equal totals give equal floats however they were split
    high = high + (low >> 24)
    return high.double() / _LIMB + (low & (2**24 - 1)).double() / _LIMB**2


def group_counts(group: Tensor, num_groups: int) -> Tensor:
    """How often each of `num_groups` occurs in `group` (N,), int32 (faster) or int64: int64 (num_groups,)."""
    return torch.bincount(group, minlength=num_groups)


def group_sums(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Summed limbs (2, num_groups) int64 of `values` (N,), one sum for each value of `group` (N,) int64.

    Booleans sum as 0 and 1.
    """
    if values.dtype == torch.bool:
        return whole_limbs(group_counts(group[values], num_groups))
    sums = torch.zeros(2, num_groups, dtype=torch.int64, device=group.device)
    for total, limb in zip(sums, _split(values), strict=True):
        total.scatter_add_(0, group, limb.long())
    return sums
