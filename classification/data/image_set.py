"""What a data set is here, and what makes one unusable.

Shapes: N images, C channels, H rows, W columns.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from uncertainty_core.checks import check_labels
from uncertainty_core.errors import UserError

SPLITS = ("train", "val", "test")
MEMORY_LIMIT = 8 * 2**30  # bytes that the images of one split may take


class DataError(UserError):
    """Data that cannot be used as they are; the message is one sentence with the reason."""


def check_choice(what: str, choice: str, choices: Sequence[str]) -> None:
    """Raise DataError unless `choice` is among `choices`; `what` is its name."""
    if choice not in choices:
        raise DataError(f"{what} must be one of {', '.join(choices)}, got {choice!r}")


def check_options(image_size: int | None, bad_images: str) -> None:
    """Raise DataError unless these two options of `load` are usable."""
    check_choice("bad_images", bad_images, ("stop", "skip"))
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size must be at least one pixel, got {image_size}")


def check_memory(what: str, *shape: int) -> None:
    """Raise DataError where the images of `what`, uint8 of `shape` (N, C, H, W), are too many to be held in memory."""
    if math.prod(shape) > MEMORY_LIMIT:
        raise DataError(
            f"the {shape[0]} images of {what} would take {math.prod(shape) / 2**30:.1f} GiB of memory as "
            f"{'x'.join(map(str, shape[1:]))}, more than {MEMORY_LIMIT / 2**30:.1f} GiB: choose a smaller image_size"
        )


def one_line(error: Exception) -> str:
    """The message of an error, without line breaks."""
    return " ".join(str(error).split())


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, positions in `classes`; -1 where there is none.
        classes: names.
        ids: stable identities of the N images, for target stores: position in the official split, or relative path.
        name: for people.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[int | str, ...]
    name: str

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or self.images.dtype != torch.uint8:
            raise ValueError(f"images must be (N, C, H, W) uint8, got {tuple(self.images.shape)} {self.images.dtype}")
        if self.labels.shape != (len(self.images),) or self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be ({len(self.images)},) int64, got {tuple(self.labels.shape)}")
        if len(self.ids) != len(self.images):
            raise ValueError(f"ids must be one per image: {len(self.ids)} ids for {len(self.images)} images")
        check_labels("labels", self.labels, len(self.classes), ignore_index=-1)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | Tensor | slice) -> "ImageSet":
        """The images at `indices`, in that order; a boolean mask (N,) or a slice does as well."""
        if isinstance(indices, Tensor):
            indices = indices.cpu()
        elif not isinstance(indices, slice):
            indices = list(indices)
        indices = torch.arange(len(self))[indices]
        ids = tuple(self.ids[i] for i in indices.tolist())
        return replace(self, images=self.images[indices], labels=self.labels[indices], ids=ids)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images, labels, classes and ids, computed once: the tensors are not to be changed."""
        digest = hashlib.sha256(json.dumps([self.images.shape, self.classes, self.ids]).encode())
        digest.update(self.images.flatten().cpu().numpy())
        digest.update(self.labels.contiguous().cpu().numpy())
        return digest.hexdigest()
