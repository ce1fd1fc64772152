"""What the arrays that are kept of images must be: they may come from a file."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_FLOATS = ("float32", "float64")
_WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint32")
DTYPES = {"floats": _FLOATS, "whole numbers": _WHOLE, "numbers": _FLOATS + _WHOLE, "true or false": ("bool",)}
_MOST = 1 << 20  # bins or categories; sums are made for each of them


class Layout(NamedTuple):
    """content: a key of `DTYPES`; shape: a letter for each dimension, equal ones are equally long."""

    content: str
    shape: str


def check_arrays(images: Any, layouts: Mapping[str, Layout], **sizes: int) -> None:
    """Raise ValueError unless the arrays among the fields of `images` are laid out so.

    Args:
        images: whose field an array is, or a dict of arrays, or None for one that was not measured.
        layouts: by the names of fields, or of what a dict has: "field.name".
        sizes: by letter, those that are known; others are what the first array has.
    """
    for field in dict.fromkeys(name.partition(".")[0] for name in layouts):
        value = getattr(images, field)
        named = {f"{field}.{key}": array for key, array in value.items()} if isinstance(value, dict) else {field: value}
        for name, array in named.items():
            if array is not None:
                _check_array(name, array, layouts.get(name) or layouts[field], sizes)


def _check_array(name: str, array: np.ndarray, layout: Layout, sizes: dict[str, int]) -> None:
    if array.dtype not in DTYPES[layout.content]:
        raise ValueError(f"{name} must hold {layout.content}, got {array.dtype}")
    dimensions = zip(layout.shape, array.shape, strict=False)
    if array.ndim != len(layout.shape) or any(sizes.setdefault(k, size) != size for k, size in dimensions):
        shape = tuple(sizes.get(letter, letter) for letter in layout.shape)
        raise ValueError(f"{name} must have the shape {shape}, got {array.shape}")


def check_within(images: Any, low: float, high: float, *names: str) -> None:
    """Raise ValueError unless arrays, of fields or "field.name", lie in [`low`, `high`]; NaN does not."""
    for name in names:
        field, _, key = name.partition(".")
        array = getattr(images, field).get(key, np.empty(0)) if key else getattr(images, field)
        if array.size and not (array.min() >= low and array.max() <= high):
            raise ValueError(f"{name} must lie in [{low}, {high}], got {array.min()} to {array.max()}")


def check_count(images: Any, *fields: str) -> None:
    """Raise ValueError unless these fields hold numbers of bins or categories."""
    for name in fields:
        if not 1 <= getattr(images, name) <= _MOST:
            raise ValueError(f"{name} must lie in [1, {_MOST}], got {getattr(images, name)}")
