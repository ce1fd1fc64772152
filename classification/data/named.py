"""Data sets by name.

Shapes: N images, C channels, H rows, W columns.
"""

import functools
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets

from uncertainty_core import derive_seed

from .batches import resize
from .folders import load_folder
from .image_set import SPLITS, DataError, ImageSet, check_choice, check_memory, check_options, one_line
from .splits import indices_of

_DOWNLOAD_ERRORS = (RuntimeError, OSError, HTTPException)


def _not_found(name: str, folder: Path, files: Sequence[str], failure: Exception | None = None) -> DataError:
    if failure is not None:
        return DataError(f"{name} could not be downloaded to {folder}: {one_line(failure)}")
    return DataError(
        f"{name} is missing or incomplete: looked for {', '.join(files)} in {folder}; --download fetches it"
    )


def _read_cifar(name: str, root: Path, train: bool, download: bool) -> ImageSet:
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        data = kind(root, train=train, download=download)
    except _DOWNLOAD_ERRORS as error:
        files = [file for file, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]
        raise _not_found(name, root / kind.base_folder, files, error if download else None) from None
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, torch.tensor(data.targets), tuple(data.classes), tuple(range(len(images))), name)


def _read_idx(path: Path) -> Tensor:
    """The bytes in an idx file, plain or with .gz behind its name: 0, 0, 8, D, then D sizes, then the values."""
    path = path if path.exists() else path.with_name(path.name + ".gz")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if content[:3] != b"\0\0\x08":
            raise ValueError("it does not begin as one")
        shape = np.frombuffer(content, ">i4", content[3], offset=4)
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape).copy())
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(f"{path} is no idx file ({one_line(error)}): remove it and fetch it with --download") from None


def _read_mnist(name: str, root: Path, train: bool, download: bool) -> ImageSet:
    # Not through torchvision's class: it wants the files unpacked, and a data folder may be read-only.
    folder = root / "MNIST" / "raw"
    part = "train" if train else "t10k"
    files = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
    if not all((folder / file).exists() or (folder / f"{file}.gz").exists() for file in files):
        if not download:
            raise _not_found(name, folder, files)
        try:
            datasets.MNIST(root, download=True)
        except _DOWNLOAD_ERRORS as error:
            raise _not_found(name, folder, files, error) from None
    images, labels = (_read_idx(folder / file) for file in files)
    try:
        return ImageSet(images[:, None], labels.long(), tuple("0123456789"), tuple(range(len(images))), name)
    except ValueError as error:
        raise DataError(f"{' and '.join(files)} in {folder} do not go together: {error}") from None


def _read_digits(name: str, root: Path, train: bool, download: bool) -> ImageSet:
    digits, order = _digits()
    ids = sorted(order[:1000] if train else order[1000:])
    images = torch.from_numpy(digits.images[ids] * (255 / 16)).round().byte()  # their values are 0 ... 16
    return ImageSet(images[:, None], torch.from_numpy(digits.target[ids]), tuple("0123456789"), tuple(ids), name)


@functools.cache  # all splits are made of the one file
def _digits() -> tuple[Any, list[int]]:
    """scikit-learn's digits, and the order in which they are dealt to the splits."""
    from sklearn.datasets import load_digits  # takes a second, which only this data set is to cost

    digits = load_digits()
    return digits, sorted(range(len(digits.target)), key=lambda i: derive_seed("digits", i))


_READERS = {"digits": _read_digits, "mnist": _read_mnist, "cifar10": _read_cifar, "cifar100": _read_cifar}


def load(
    name: str,
    split: str,
    root: str | Path = "data",
    image_size: int | None = None,
    validation: float = 0.1,
    download: bool = False,
    bad_images: str = "stop",
    progress: bool = True,
) -> ImageSet:
    """One split of a data set.

    Args:
        name: "digits", "mnist", "cifar10", "cifar100", or "folder:<path>" of a folder that holds one folder of images
            per class, or train/, test/ and perhaps val/ that do.
        split: "train", "val" or "test". The validation split is cut from the official training split, unless a folder
            brings its own; a folder without splits gives 20 % of each class to "test" first.
        root: where torchvision keeps its data sets.
        image_size: side in pixels; None for the images' own. The 28 pixels of MNIST become 30 or 32 by a black border.
        validation: share of the training images of each class that makes the validation split; 0 leaves it empty.
        download: fetch a data set that is not there.
        bad_images: "stop" at an image in a folder that cannot be decoded, or "skip" it with a warning.
        progress: show a bar while images are decoded.
    """
    check_choice("split", split, SPLITS)
    check_options(image_size, bad_images)
    if name.startswith("folder:"):
        return load_folder(name, split, image_size, validation, bad_images, progress)
    check_choice("data set", name, (*_READERS, "folder:<path>"))
    whole = _READERS[name](name, Path(root).expanduser(), split != "test", download)
    if split != "test":
        whole = whole.subset(indices_of(split, whole.labels, whole.ids, validation))
    if image_size is not None:
        check_memory(name, len(whole), whole.images.shape[1], image_size, image_size)
        if name == "mnist" and image_size in (30, 32):  # black already is what surrounds these digits
            whole = replace(whole, images=F.pad(whole.images, [(image_size - 28) // 2] * 4))
        whole = replace(whole, images=resize(whole.images, image_size))
    return replace(whole, name=f"{name} {split}")
