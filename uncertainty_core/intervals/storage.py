"""What is kept of each image, in a file beside `run.json`."""

import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..io.files import write_atomically
from . import FILE
from .classified import ClassifiedImages
from .detected import DetectedImages
from .segmented import SegmentedImages

Images = ClassifiedImages | DetectedImages | SegmentedImages
_KINDS = {"classified": ClassifiedImages, "detected": DetectedImages, "segmented": SegmentedImages}


def write_images(folder: Path, images: Images) -> Path:
    """Write `images` into a `folder` that exists, compressed; returns the path."""
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
    content = io.BytesIO()
    np.savez_compressed(content, plain=np.frombuffer(json.dumps(plain).encode(), dtype=np.uint8), **arrays)
    path = Path(folder) / FILE
    write_atomically(path, content.getvalue())
    return path


def read_images(folder: Path) -> Images | None:
    """What `write_images` wrote into `folder`, None for nothing; raises UserError where it is damaged."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            values: dict[str, Any] = json.loads(file["plain"].tobytes())
            for name in file.files:
                whole, _, part = name.partition(".")
                if part:
                    values.setdefault(whole, {})[part] = file[name]
                elif name != "plain":
                    values[name] = file[name]
        return _KINDS[values.pop("kind")](**values)
    except Exception as error:  # of zip files, JSON and missing entries
        raise UserError(f"{path} is damaged ({error}): evaluate the predictor again") from None
