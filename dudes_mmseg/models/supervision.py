"""What a student is taught about a batch, from a teacher or from what its pipeline has loaded.

Shapes: B images, C outputs of the segmentor, U of the uncertainty head, H x W pixels of the network's input, h x w of
an image before it was padded to that.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from uncertainty_core.errors import UserError
from uncertainty_core.targets.top_k import decode_top_k

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


def stored_targets(
    samples: Sequence[SegDataSample], num_outputs: int, num_classes: int | None, size: tuple[int, int]
) -> Targets:
    """Targets that came with the images.

    Args:
        samples: with `gt_uncertainty` (U, h, w), and `gt_probabilities` (k, h, w), see `encode_top_k`.
        num_outputs: U.
        num_classes: of the probabilities; None for a student that has no use for them.
        size: H, W.
    """
    uncertainty = _stacked(samples, "gt_uncertainty", size)
    if uncertainty.shape[1] != num_outputs:
        raise UserError(
            f"{image_name(samples[0])} has a target of {uncertainty.shape[1]} maps for an uncertainty head with "
            f"num_outputs={num_outputs}: change that, or generate the targets anew"
        )
    real = ((uncertainty >= 0) & (uncertainty <= 1)).all(1)
    probabilities = None
    if num_classes is not None:
        codes = _stacked(samples, "gt_probabilities", size)
        real &= codes[:, 0] > PADDING  # OpenCV rotates integers and floats with other roundings
        probabilities = decode_top_k(codes, max(num_classes, 2))
        probabilities = probabilities[:, 1:] if num_classes == 1 else probabilities
    return Targets(uncertainty, real, probabilities)


_MISSING = {
    "gt_uncertainty": "uncertainty target: put LoadUncertaintyTarget and PackUncertaintyInputs into the training "
    "pipeline, or give the model a teacher",
    "gt_probabilities": "mean probabilities of a teacher, which loss_distillation learns from: generate the targets "
    "with --top-k 3, or give the model a teacher",
}


def _stacked(samples: Sequence[SegDataSample], field: str, size: tuple[int, int]) -> Tensor:
    """Maps (B, U, H, W) of a field of all samples, with PADDING where there is no image."""
    for sample in samples:
        if field not in sample:
            raise UserError(f"{image_name(sample)} has no {_MISSING[field]}")
    return torch.stack([_padded(sample.get(field).data, sample, size, "target") for sample in samples])


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
