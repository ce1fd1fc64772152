"""Maps of pixels between the image, the network's input, and batches of either.

Shapes: B images, C channels, H x W pixels of the network's input, h x w of an image before it was padded to that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor

from uncertainty_core.errors import UserError

PADDING = 255  # mmseg's transforms pad segmentation fields with it
_FLIPPED = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


def to_original(maps: Tensor, metainfo: Mapping[str, Any], align_corners: bool) -> Tensor:
    """`maps` (1, C, H, W) of the network's input as maps of the image file: no padding, not flipped, its own size."""
    left, right, top, bottom = metainfo.get("img_padding_size", metainfo.get("padding_size", (0, 0, 0, 0)))
    maps = maps[..., top : maps.shape[-2] - bottom, left : maps.shape[-1] - right]
    if metainfo.get("flip"):
        maps = maps.flip(_FLIPPED[metainfo["flip_direction"]])
    return resize(maps, metainfo["ori_shape"][:2], mode="bilinear", align_corners=align_corners, warning=False)


def image_name(sample: SegDataSample | Mapping[str, Any]) -> str:
    """What to call an image in a message; `sample` is a data sample, or its dict."""
    return sample.get("img_path") or "an image"


def image_key(sample: SegDataSample | Mapping[str, Any]) -> str:
    """What tells an image from others, wherever the data are: its name, and that of its folder."""
    return "/".join(Path(image_name(sample)).parts[-2:])


def _padded(maps: Tensor, sample: SegDataSample, size: tuple[int, int], name: str) -> Tensor:
    """`maps` (C, h, w) of a sample, with padding where the data preprocessor has padded its image to H x W."""
    maps = F.pad(maps, tuple(sample.metainfo.get("padding_size", (0, 0, 0, 0))), value=PADDING)
    if maps.shape[-2:] != size:
        height, width = maps.shape[-2:]
        raise UserError(
            f"{image_name(sample)} is {size[1]}x{size[0]} pixels in the batch, but its {name} {width}x{height}: "
            "load it before the transforms that resize and crop the image, so that they move it, too"
        )
    return maps


def batched_targets(samples: Sequence[SegDataSample], num_outputs: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Targets that came with the images (B, U, H, W), and where they are real and not padding, bool.

    Args:
        samples: with `gt_uncertainty` (U, h, w).
        num_outputs: U.
        size: H, W.
    """
    for sample in samples:
        if "gt_uncertainty" not in sample:
            raise UserError(
                f"{image_name(sample)} has no uncertainty target: put LoadUncertaintyTarget and PackUncertaintyInputs "
                "into the training pipeline, or give the model a teacher"
            )
        if len(sample.gt_uncertainty.data) != num_outputs:
            raise UserError(
                f"{image_name(sample)} has a target of {len(sample.gt_uncertainty.data)} maps for an uncertainty head "
                f"with num_outputs={num_outputs}: change that, or generate the targets anew"
            )
    targets = torch.stack([_padded(sample.gt_uncertainty.data, sample, size, "target") for sample in samples])
    return targets, (targets >= 0) & (targets <= 1)


def real_pixels(samples: Sequence[SegDataSample], size: tuple[int, int]) -> Tensor:
    """Where the images of a batch are real and not padding (B, 1, H, W), bool; void pixels are real.

    Args:
        samples: with `real_pixels` (1, h, w), 0 where real, if their pipeline pads; without, all of the image is real.
        size: H, W.
    """
    marks = []
    for sample in samples:
        if "real_pixels" in sample:
            mark = sample.real_pixels.data
        else:
            left, right, top, bottom = sample.metainfo.get("padding_size", (0, 0, 0, 0))
            mark = torch.zeros(1, size[0] - top - bottom, size[1] - left - right, dtype=torch.uint8)
        marks.append(_padded(mark, sample, size, "real_pixels"))
    return torch.stack(marks) == 0
