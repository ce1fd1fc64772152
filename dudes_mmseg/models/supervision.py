"""What a student is taught about a batch, from a teacher or from what its pipeline has loaded.

Shapes: B images, C classes, U outputs of the uncertainty head, H x W pixels of the network's input, h x w of an image
before it was padded to that.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from uncertainty_core.errors import UserError

from .maps import PADDING, image_name


class Targets(NamedTuple):
    """Attributes:
    uncertainty: (B, U, H, W).
    real: which pixels are of an image, and not padding (B, H, W), bool; void pixels are.
    probabilities: mean over the teacher's predictors (B, C, H, W); None where they are not known.
    """

    uncertainty: Tensor
    real: Tensor
    probabilities: Tensor | None

    @property
    def mask(self) -> Tensor:
        """Which pixels of the uncertainty count (B, U, H, W), bool."""
        return self.real.unsqueeze(1).expand_as(self.uncertainty)


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


def stored_targets(samples: Sequence[SegDataSample], num_outputs: int, size: tuple[int, int]) -> Targets:
    """Targets that came with the images.

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
    return Targets(targets, ((targets >= 0) & (targets <= 1)).all(1), None)


def real_pixels(samples: Sequence[SegDataSample], size: tuple[int, int]) -> Tensor:
    """Where the images of a batch are real and not padding (B, H, W), bool; void pixels are real.

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
        marks.append(_padded(mark, sample, size, "real_pixels")[0])
    return torch.stack(marks) == 0
