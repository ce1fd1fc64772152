"""What a store holds for an image: its maps in 16 bits, and the size of the file that it was made from.

An image is known by its path relative to the data set's image folder, so a data set may be moved.

Shapes: H rows, W columns, C classes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from uncertainty_core import TargetStore, TargetStoreError
from uncertainty_core.targets.top_k import encode_top_k

# No two or more numbers in [0, 1] deviate more, with ddof 0 or 1: the worst are 0 and 1 alone, with ddof 1. Nothing is
# ever clipped, and what is read back is off by at most half a step of 1.08e-5.
LARGEST_STD = 0.5**0.5
_LARGEST_CODE = 2**16 - 1
# What a store's fingerprint holds of how its numbers are to be read.
CODEC = {"version": 1, "dtype": "uint16", "largest": LARGEST_STD}


def encode_std(std: Tensor) -> Tensor:
    """Standard deviations of probabilities (...) as 16-bit numbers (...); ValueError for what cannot be one."""
    return _encode(std, LARGEST_STD, "a standard deviation of probabilities")


def decode_std(codes: Tensor) -> Tensor:
    """What `encode_std` was given (...), as float32, within 5.4e-6."""
    return _decode(codes, LARGEST_STD)


def _encode(values: Tensor, largest: float, what: str) -> Tensor:
    outside = ~((values >= 0) & (values <= largest + 1e-6))  # NaN is outside; the margin is for rounding in float32
    if outside.any():
        raise ValueError(f"{what} lies in [0, {largest:.4f}], got {values[outside][0].item()}")
    return (values.double() * (_LARGEST_CODE / largest)).round().clamp(max=_LARGEST_CODE).to(torch.uint16)


def _decode(codes: Tensor, largest: float) -> Tensor:
    return codes.float() * (largest / _LARGEST_CODE)


def encode_target(
    std: Tensor,
    image_path: str | os.PathLike,
    others: Mapping[str, Tensor] = MappingProxyType({}),
    probabilities: Tensor | None = None,
    top_k: int = 0,
) -> dict[str, Tensor]:
    """What the store holds for an image.

    Args:
        std: its uncertainty (H, W), or (C, H, W) class by class.
        image_path: its file.
        others: further uncertainties by name, in [0, 1], (H, W) each.
        probabilities: mean ones (C, H, W), of which the `top_k` largest are kept; None for none.
        top_k: how many.
    """
    target = {"image_bytes": torch.tensor(os.path.getsize(image_path))}
    try:
        target["uncertainty"] = encode_std(std)
        target |= {name: _encode(values, 1, name) for name, values in others.items()}
        if probabilities is not None:
            target["probabilities"] = encode_top_k(probabilities[None], top_k)[0]
    except ValueError as error:
        raise TargetStoreError(f"the teacher's uncertainty for {image_path} is unusable: {error}") from None
    return target


def image_id(path: str, store: TargetStore) -> str:
    """The id in `store` of the image at `path`: the one id that the path ends with, in whole folder names."""
    parts = PurePath(path).parts
    ids = [suffix for start in range(len(parts)) if (suffix := "/".join(parts[start:])) in store]
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise TargetStoreError(f"{store.folder} has no target for {path}: generate targets for this data set")
    raise TargetStoreError(
        f"{store.folder} has several targets that {path} may mean, {ids[0]} and {ids[1]}: rename an image folder and "
        "generate the targets again"
    )


def read_target(path: str, store: TargetStore) -> Tensor:
    """Uncertainty (H, W) or (C, H, W), float32, of the image at `path`; TargetStoreError unless made from this file."""
    return read_maps(path, store)["uncertainty"]


def read_maps(path: str, store: TargetStore) -> dict[str, Tensor]:
    """All that the store has of the image at `path`; TargetStoreError unless it was made from this file.

    Returns:
        "uncertainty" as `read_target`; where the store has them, others (H, W), and "probabilities" (k, H, W) uint16,
        as they are coded.
    """
    check_codec(store)
    target = store[image_id(path, store)]
    if int(target.pop("image_bytes")) != os.path.getsize(path):
        raise TargetStoreError(
            f"the target for {path} in {store.folder} is stale: it was made from another file of that name, "
            "generate the targets again"
        )
    largest = {"uncertainty": LARGEST_STD}
    maps = {name: _decode(codes, largest.get(name, 1)) for name, codes in target.items() if name != "probabilities"}
    return target | maps


def check_codec(store: TargetStore) -> None:
    """Raise TargetStoreError if a store was coded otherwise, by another version of this package."""
    found = store.fingerprint.get("codec")
    if found != CODEC:
        raise TargetStoreError(
            f"{store.folder} is coded as {json.dumps(found)}, and this version reads {json.dumps(CODEC)}: generate the "
            "targets again"
        )


def digest(content: Any) -> str:
    """16 hexadecimal digits that change with any of these JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def images_digest(paths: Mapping[str, str]) -> str:
    """16 hexadecimal digits that change with the ids of images and the sizes of their files, by `paths` of ids."""
    return digest([[id_, os.path.getsize(path)] for id_, path in sorted(paths.items())])


def check_targets(store: TargetStore, image_paths: Iterable[str]) -> None:
    """Raise TargetStoreError unless every image has a target that was made from this very file; names the first."""
    by_id = {path: image_id(path, store) for path in image_paths}
    roots = {path.removesuffix(id_) for path, id_ in by_id.items()}
    if not all(_is_whole(Path(root), store) for root in roots):
        # only some of the images are at hand, or some are stale: the store itself knows which
        for path in by_id:
            read_target(path, store)


def _is_whole(root: Path, store: TargetStore) -> bool:
    """Whether all images of the store are in the folder `root` as they were; its shards need not be opened for this."""
    try:
        return images_digest({id_: root / id_ for id_ in store.ids}) == store.fingerprint.get("images")
    except OSError:
        return False
