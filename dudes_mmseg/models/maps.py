"""Maps of pixels between the image and the network's input.

Shapes: C channels, H x W pixels of the network's input.
"""

from collections.abc import Mapping
from typing import Any

from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor

from uncertainty_core.sampling import folds

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
    """`folds.image_key` of an image; `sample` is a data sample, or its dict."""
    return folds.image_key(image_name(sample))
