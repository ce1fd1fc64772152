"""Test images made harder: noise, blur and rotation at five strengths.

What happens to an image depends on (seed, kind, strength, id of the image) alone: neither on the images beside it nor
on the global random state.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from uncertainty_core import derive_seed

STRENGTHS = {
    "noise": (0.04, 0.08, 0.12, 0.2, 0.3),  # standard deviation, where black is 0 and white is 1
    "blur": (0.5, 0.75, 1.0, 1.5, 2.0),  # standard deviation of the kernel in pixels
    "rotation": (10.0, 20.0, 30.0, 45.0, 60.0),  # degrees, to a random side; what comes into view is black
}


def _noise(image: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(image.shape, generator=generator)
    return (image + 255 * deviation * noise).round_().clamp_(0, 255).byte()


def _blur(image: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    radii = [min(round(4 * deviation), side - 1) for side in (image.shape[2], image.shape[1])]  # it pads by reflection
    return transforms.gaussian_blur(image, [2 * radius + 1 for radius in radii], [deviation, deviation])


def _rotation(image: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    side = 1 if torch.rand((), generator=generator) < 0.5 else -1
    return transforms.rotate(image, side * degrees, InterpolationMode.BILINEAR)


_CORRUPTIONS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "rotation": _rotation,
}


def corrupt(images: Tensor, kind: str, strength: int, seed: int, ids: Sequence[int | str] | None = None) -> Tensor:
    """A corrupted copy of `images` (N, C, H, W) uint8, on the CPU.

    Args:
        images: what to corrupt.
        kind: "noise", "blur" or "rotation".
        strength: 1 to 5, an entry of `STRENGTHS`; 0 changes nothing.
        seed: of the random draws.
        ids: identities of the N images, which key their draws; their positions by default.
    """
    if kind not in STRENGTHS:
        raise ValueError(f"kind must be one of {', '.join(STRENGTHS)}, got {kind!r}")
    if strength not in range(len(STRENGTHS[kind]) + 1):
        raise ValueError(f"strength must lie between 0 and {len(STRENGTHS[kind])}, got {strength!r}")
    corrupted = images.clone()
    if strength > 0:
        for image, image_id in zip(corrupted, range(len(images)) if ids is None else ids, strict=True):
            generator = torch.Generator().manual_seed(derive_seed(seed, kind, strength, image_id))
            image.copy_(_CORRUPTIONS[kind](image, STRENGTHS[kind][strength - 1], generator))
    return corrupted
