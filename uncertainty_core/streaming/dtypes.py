"""The precision in which values are summed."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32, or in float64 if they are: half precision is for storage, not for sums."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
