"""Adaptive pooling in terms that ONNX has for images of any size.

Shapes: B images, C channels, H x W pixels, I x J bins.
"""

import copy

import torch
from torch import Tensor, nn


class AnySizePool(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two matrix products: (B, C, H, W) to (B, C, I, J)."""

    def __init__(self, bins: tuple[int, int]) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, I, J)."""
        rows, columns = (_weights(bins, x.shape[dim], x) for bins, dim in zip(self.bins, (2, 3), strict=True))
        return rows @ x @ columns.T


def _weights(bins: int, length: int, like: Tensor) -> Tensor:
    """The mean over each of `bins` overlapping parts of `length` numbers, as a matrix (bins, length)."""
    number = torch.arange(bins, device=like.device).unsqueeze(1)
    place = torch.arange(length, device=like.device)
    start, end = number * length // bins, ((number + 1) * length + bins - 1) // bins
    inside = (start <= place) & (place < end)
    return inside.to(like.dtype) / (end - start)


def with_any_size_pools(model: nn.Module) -> nn.Module:
    """A copy of a model in which `AnySizePool` does what `nn.AdaptiveAvgPool2d` does in several bins."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.AdaptiveAvgPool2d:
                size = child.output_size
                bins = size if isinstance(size, tuple) else (size, size)
                if bins != (1, 1) and None not in bins:
                    setattr(parent, name, AnySizePool(bins))
    return model
