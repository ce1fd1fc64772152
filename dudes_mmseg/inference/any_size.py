"""Layers that fix the size of images when they are traced, in terms that do not.

Shapes: B images, C channels, H x W pixels, I x J bins.
"""

import copy

import torch
from mmseg.models.utils import Upsample, resize
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


class AnySizeUpsample(nn.Module):
    """mmseg's `Upsample` by a whole number, without turning sizes into such of Python."""

    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        self.factor, self.mode, self.align_corners = int(layer.scale_factor), layer.mode, layer.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, factor H, factor W)."""
        height, width = x.shape[2:]
        size = (height * self.factor, width * self.factor)
        return resize(x, size, None, self.mode, self.align_corners, warning=False)


def with_any_size_layers(model: nn.Module) -> nn.Module:
    """A copy of a model, that computes the same, for images of any size."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if (layer := _any_size(child)) is not None:
                setattr(parent, name, layer)
    return model


def _any_size(layer: nn.Module) -> nn.Module | None:
    """What does the same as a layer; None where it may stay."""
    if type(layer) is nn.AdaptiveAvgPool2d:
        size = layer.output_size
        bins = size if isinstance(size, tuple) else (size, size)
        if bins != (1, 1) and None not in bins:
            return AnySizePool(bins)
    if type(layer) is Upsample and isinstance(layer.scale_factor, float) and layer.scale_factor.is_integer():
        return AnySizeUpsample(layer)
    return None
