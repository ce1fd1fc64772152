"""Which images train, validate and test: decided by hashes of their ids, class by class.

Shapes: N images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from uncertainty_core import derive_seed

from .image_set import DataError

TEST_FRACTION = 0.2  # of a folder that has no split of its own


def stratified_split(labels: Tensor, ids: Sequence[int | str], fraction: float, key: str) -> tuple[Tensor, Tensor]:
    """Indices of the images that stay and of those set aside, each in ascending order.

    Of every class the rounded `fraction` is set aside, but never all of it. Which images these are depends on the
    hashes of (key, id) alone.

    Args:
        labels: (N,) int64.
        ids: of the N images, unique.
        fraction: in [0, 1).
        key: names the split, so that two splits of the same images are independent.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"the {key} fraction must lie in [0, 1), got {fraction}")
    aside = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = sorted((labels == label).nonzero()[:, 0].tolist(), key=lambda i: derive_seed(key, ids[i]))
        aside[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
    return (~aside).nonzero()[:, 0], aside.nonzero()[:, 0]


def indices_of(split: str, labels: Tensor, ids: Sequence[int | str], validation: float, test: float = 0) -> Tensor:
    """Where `split` is when `test` of the images are set aside first, and `validation` of the rest then."""
    rest, tested = stratified_split(labels, ids, test, "test")
    train, val = stratified_split(labels[rest], [ids[i] for i in rest], validation, "validation")
    return {"train": rest[train], "val": rest[val], "test": tested}[split]
