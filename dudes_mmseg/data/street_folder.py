"""Drawn streets on disk, in the folders of Cityscapes and under names like its own.

    streets/
        streets.json                                                 which streets these are, written first
        leftImg8bit/train/train00/train00_000000_000000_leftImg8bit.png
        gtFine/train/train00/train00_000000_000000_gtFine_labelIds.png ... _labelTrainIds.png ... _instanceIds.png

Every file is written beside its place and moved there when complete, a picture after its labels, so a writer that was
killed goes on with the street that it was at.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from uncertainty_core.cli import track
from uncertainty_core.errors import UserError
from uncertainty_core.io.claims import is_written_for
from uncertainty_core.io.files import png, write_atomically

from .cityscapes_labels import train_ids
from .streets import VERSION, draw_street

NUM_STREETS = {"train": 200, "val": 50, "test": 100}
SIZE = (256, 128)  # width and height
SMALLEST = 32
_PER_CITY = 100


def write_streets(
    folder: str | os.PathLike,
    num_streets: Mapping[str, int] | None = None,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the streets that are not there yet, and return the folder: the `data_root` of a `CityscapesDataset`.

    Args:
        folder: made if need be; one that holds other streets, or more of them, is refused.
        num_streets: by split; None for `NUM_STREETS`.
        size: width and height in pixels.
        seed: of all drawings.
        progress: show a bar.
    """
    root, num_streets = Path(folder), dict(NUM_STREETS if num_streets is None else num_streets)
    for split, number in num_streets.items():
        if split not in NUM_STREETS or number < 0:
            raise UserError(f"there are no {number} streets of {split!r}: ask for 0 or more of train, val and test")
    if min(size) < SMALLEST:
        raise UserError(f"streets of {size[0]} x {size[1]} pixels show nothing: take at least {SMALLEST} x {SMALLEST}")
    try:
        _claim(root, {"version": VERSION, "seed": seed, "width": size[0], "height": size[1]})
        for split, number in num_streets.items():
            _refuse_more(root, split, number)
        wanted = [(split, index) for split, number in num_streets.items() for index in range(number)]
        todo = [(split, index) for split, index in wanted if not _image_path(root, split, index).exists()]
        for split, index in track(todo, "streets", "image", progress):
            _write_street(root, split, index, size, seed)
    except OSError as error:
        raise UserError(f"{root} cannot hold the streets ({error}): choose another folder") from None
    return root


def _name(split: str, index: int) -> str:
    # as in Cityscapes no city is in two splits, so no name is
    return f"{split}{index // _PER_CITY:02d}_000000_{index % _PER_CITY:06d}"


def _image_path(root: Path, split: str, index: int) -> Path:
    name = _name(split, index)
    return root / "leftImg8bit" / split / name.split("_")[0] / f"{name}_leftImg8bit.png"


def _claim(root: Path, request: dict[str, int]) -> None:
    """Note what streets the folder is for; refuse it if it is for others, or somebody else's."""
    path = root / "streets.json"
    if is_written_for(path, request, "streets", place=root):
        return
    if any((root / name).exists() for name in ("leftImg8bit", "gtFine")):
        raise UserError(f"{root} holds images but no streets.json, so they are not drawn ones: choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    _write(path, (json.dumps(request) + "\n").encode())


def _refuse_more(root: Path, split: str, number: int) -> None:
    """A data set reads all that is there, so a folder with more is another data set."""
    found = sum(1 for _ in (root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    if found > number:
        raise UserError(f"{root} holds {found} streets of {split}, not {number}: remove it, or choose another folder")


def _write_street(root: Path, split: str, index: int, size: tuple[int, int], seed: int) -> None:
    width, height = size
    street = draw_street(seed, split, index, width, height)
    labels = {
        "labelIds": street.label_ids,
        "labelTrainIds": train_ids(street.label_ids),
        "instanceIds": street.instance_ids,
    }
    name = _name(split, index)
    for kind, values in labels.items():
        _write_png(root / "gtFine" / split / name.split("_")[0] / f"{name}_gtFine_{kind}.png", values)
    _write_png(_image_path(root, split, index), street.image)


def _write_png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, png(Image.fromarray(values)))


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, content, f".{os.getpid()}.part")  # processes that start together do not meet
