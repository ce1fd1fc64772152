"""What is done to images on their way into a network.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .image_set import ImageSet

_CHUNK = 256  # images that are turned into wider numbers at a time


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and standard deviation (C,) of `images` (N, C, H, W) uint8 on [0, 1]: float64, from exact counts."""
    if images.numel() == 0:
        raise ValueError("images must hold at least one image to have a mean")
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in images.split(_CHUNK):
        counts += torch.stack([channel.flatten().bincount(minlength=256) for channel in part.unbind(1)]).cpu()
    share = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    mean = share @ values
    return mean, (share * (values - mean[:, None]) ** 2).sum(1).sqrt()


def to_float(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(images / 255 - mean) / std as float32; uint8 `images` (N, C, H, W), `mean` and `std` (C,).

    A constant channel (std 0) is only centred.
    """
    std = std.double().where(std > 0, 1.0)
    scale, shift = (1 / (255 * std)).float(), (-mean.double() / std).float()
    return (images * scale.to(images.device).view(-1, 1, 1)).add_(shift.to(images.device).view(-1, 1, 1))


def _uniform(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Drawn where the generator lives, so that one on the CPU gives every device the same numbers."""
    return torch.rand(*shape, generator=generator, device=generator.device).to(device)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each of `images` (N, C, H, W), left to right, with probability 1/2.

    This is the augmentation of the dropout distillation paper: it says "vertically flip", by which mirrored images
    are meant, reflected at the vertical axis; upside-down cars and digits are in no test set.
    """
    mirrored = _uniform((len(images), 1, 1, 1), generator, images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad `images` (N, C, H, W) with zeros on all sides and cut each back to H x W at a place of its own."""
    height, width = images.shape[2:]
    padded = F.pad(images, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, top, left, H, W), a view
    corners = torch.randint(2 * padding + 1, (2, len(images)), generator=generator, device=generator.device)
    top, left = corners.to(images.device)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def drop_pixels(images: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Set each pixel of `images` (N, C, H, W), all its channels together, to zero with probability `p`.

    With p = 0.2 on training images: the perturbed unlabelled set of the dropout distillation paper.
    """
    dropped = _uniform((len(images), 1, *images.shape[2:]), generator, images.device) < p
    return images.masked_fill(dropped, 0)


def resize(images: Tensor, size: int) -> Tensor:
    """`images` (N, C, H, W) uint8 as (N, C, size, size): bilinear with antialias, stretched where not square."""
    if images.shape[2:] == (size, size):
        return images
    small = (
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True) for part in images.split(_CHUNK)
    )
    return torch.cat([part.round_().byte() for part in small])


def with_channels(images: Tensor, channels: int) -> Tensor:
    """`images` (N, C, H, W) uint8 with so many channels: grey is repeated, colour becomes luma."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.repeat(1, channels, 1, 1)
    if (images.shape[1], channels) != (3, 1):
        raise ValueError(f"channels must be 1 or 3 or the images' own {images.shape[1]}, got {channels}")
    luma = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(3, 1, 1)  # ITU-R 601 in 16 bits, as Pillow's "L"
    return torch.cat([((part * luma).sum(1, keepdim=True) + 2**15 >> 16).byte() for part in images.split(_CHUNK)])


def adapt(image_set: ImageSet, channels: int, size: int) -> ImageSet:
    """`image_set` as a model for other images takes it, for out-of-distribution sets: channels and size are changed."""
    return replace(image_set, images=resize(with_channels(image_set.images, channels), size))
