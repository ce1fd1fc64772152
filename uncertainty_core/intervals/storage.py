"""What is kept of each image, and its metrics on resamples of them, in a file beside `run.json`.

Shapes: R resamples.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..io.files import write_atomically
from ..io.records import build, expect
from ..io.strict_json import read_json
from . import FILE
from .classified import ClassifiedImages
from .detected import DetectedImages
from .segmented import SegmentedImages

Images = ClassifiedImages | DetectedImages | SegmentedImages
_KINDS = {"classified": ClassifiedImages, "detected": DetectedImages, "segmented": SegmentedImages}
_RESAMPLES = "resamples"
T = TypeVar("T")


def write_images(folder: Path, images: Images, resamples: Mapping[str, Tensor] | None = None) -> Path:
    """Write `images`, and metrics (R,) of resamples by name, into a `folder` that exists; returns the path."""
    plain: dict[str, Any] = {"kind": next(kind for kind, cls in _KINDS.items() if isinstance(images, cls))}
    arrays: dict[str, np.ndarray] = {}
    for found in fields(images):
        value = getattr(images, found.name)
        if isinstance(value, np.ndarray):
            arrays[found.name] = value
        elif isinstance(value, dict):
            arrays |= {f"{found.name}.{name}": array for name, array in value.items()}
        elif value is not None:
            plain[found.name] = value
    arrays |= {f"{_RESAMPLES}.{name}": values.float().numpy() for name, values in (resamples or {}).items()}
    content = io.BytesIO()
    np.savez_compressed(content, plain=np.frombuffer(json.dumps(plain).encode(), dtype=np.uint8), **arrays)
    path = Path(folder) / FILE
    write_atomically(path, content.getvalue())
    return path


def read_images(folder: Path) -> Images | None:
    """The images that `write_images` wrote into `folder`, None for nothing; raises UserError where it is damaged."""

    def read(file: np.lib.npyio.NpzFile) -> Images:
        values: dict[str, Any] = read_json(file["plain"].tobytes())
        kind = values.pop("kind")
        for name in file.files:
            whole, _, part = name.partition(".")
            if part and whole != _RESAMPLES:
                values.setdefault(whole, {})[part] = file[name]
            elif not part and name != "plain":
                values[name] = file[name]
        return build(_KINDS[kind], values, readers={np.ndarray: _array})

    return _read(Path(folder) / FILE, read)


def _array(value: Any, place: str) -> np.ndarray:
    expect(isinstance(value, np.ndarray), "an array", value, place)
    return value


def read_resamples(folder: Path) -> dict[str, Tensor]:
    """The metrics (R,) on resamples that `write_images` wrote into `folder`; raises UserError where it is damaged."""

    def read(file: np.lib.npyio.NpzFile) -> dict[str, Tensor]:
        found = {}
        for name in file.files:
            if name.startswith(f"{_RESAMPLES}."):
                values = file[name]
                if values.dtype != np.float32 or values.ndim != 1:
                    raise ValueError(f"{name} must be float32 (R,), got {values.dtype} {values.shape}")
                found[name.partition(".")[2]] = torch.from_numpy(values).double()
        return found

    return _read(Path(folder) / FILE, read) or {}


def _read(path: Path, read: Callable[[np.lib.npyio.NpzFile], T]) -> T | None:
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return read(file)
    except Exception as error:  # of zip files, arrays, JSON and missing entries
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): evaluate the predictor again") from None
