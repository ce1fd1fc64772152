"""Images in folders, one per class.

Shapes: N images, C channels, H rows, W columns.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from uncertainty_core.cli import track

from .batches import with_channels
from .image_set import SPLITS, DataError, ImageSet, check_memory, check_options, one_line
from .splits import TEST_FRACTION, indices_of

_NAMED_AT_MOST = 10  # undecodable images in a warning


def _existing_folder(path: str | Path) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder" if folder.exists() else f"folder {folder} does not exist")
    return folder


def _image_files(folder: Path) -> list[str]:
    """Names of the images right in `folder`, sorted."""
    names = (entry.name for entry in folder.iterdir() if entry.suffix.lower() in IMG_EXTENSIONS)
    files = sorted(name for name in names if not name.startswith("."))
    if not files:
        raise DataError(f"folder {folder} holds no image ({', '.join(IMG_EXTENSIONS)})")
    return files


def _class_files(folder: Path, prefix: str = "") -> dict[str, list[str]]:
    """Of every class, in alphabetical order, the image files: their paths from `folder`, `prefix` before them."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"folder {folder} holds no class folders: the images of each class go into a folder of its own")
    if set(classes) <= set(SPLITS):
        raise DataError(f"folder {folder} holds {' and '.join(classes)}: a folder with splits needs train and test")
    return {name: [f"{prefix}{name}/{file}" for file in _image_files(folder / name)] for name in classes}


def _list_folder(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Image files by split, "train" first, and class; a folder without train/ and test/ has one split, called "all"."""
    if not all((folder / split).is_dir() for split in ("train", "test")):
        return {"all": _class_files(folder)}
    listing = {split: _class_files(folder / split, f"{split}/") for split in SPLITS if (folder / split).is_dir()}
    for split, by_class in listing.items():
        if odd := sorted(by_class.keys() ^ listing["train"].keys()):
            raise DataError(f"folder {folder} has other classes in {split} than in train: {', '.join(odd)}")
    return listing


def _survey(folder: Path, files: Sequence[str]) -> tuple[int, tuple[int, int]]:
    """Channels that do for all `files`, and the width and height of the first, from their headers."""
    size = None
    for file in files:
        try:
            with Image.open(folder / file) as image:
                mode, size = image.mode, size or image.size
        except Exception:  # it is named once it is to be decoded
            continue
        if Image.getmodebase(mode) != "L":
            return 3, size
    if size is None:
        raise DataError(f"none of the {len(files)} images in {folder} can be decoded")
    return 1, size


def _decode(path: Path, channels: int, image_size: int | None) -> Tensor:
    """An image file as (C, H, W) uint8."""
    with Image.open(path) as image:
        if image.mode == "F":
            raise ValueError("its pixels are floating point numbers")
        if image.mode.startswith("I"):  # 16 bits, which Pillow would clip rather than scale
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        image = image.convert("L" if channels == 1 else "RGB")
        if image_size is not None:
            image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).view(image.height, image.width, channels).permute(2, 0, 1)


def _read_images(
    folder: Path,
    files: Sequence[str],
    channels: int,
    size: tuple[int, int],
    image_size: int | None,
    bad_images: str,
    progress: bool,
) -> tuple[Tensor, list[int]]:
    """The decoded `files` (N, C, H, W) and where they are in the list, which is not everywhere if some are skipped."""
    width, height = size if image_size is None else (image_size, image_size)
    check_memory(str(folder), len(files), channels, height, width)
    images = torch.empty(len(files), channels, height, width, dtype=torch.uint8)
    kept: list[int] = []
    bad: list[str] = []
    for index, file in enumerate(track(files, folder.name, "image", progress)):
        try:
            image = _decode(folder / file, channels, image_size)
        except Exception as error:  # decoders raise nearly anything at broken files
            if bad_images == "stop":
                raise DataError(
                    f"{folder / file} cannot be decoded ({one_line(error)}): "
                    "mend it, remove it, or leave out all such images with bad_images=skip"
                ) from None
            bad.append(file)
            continue
        if image.shape[1:] != (height, width):
            raise DataError(
                f"the images in {folder} differ in size ({file} has {image.shape[2]}x{image.shape[1]} pixels, "
                f"others {width}x{height}): choose an image_size"
            )
        images[len(kept)] = image
        kept.append(index)
    if bad and not kept:
        raise DataError(f"none of the {len(files)} images in {folder} can be decoded")
    if bad:
        names = ", ".join(bad[:_NAMED_AT_MOST]) + (", ..." if len(bad) > _NAMED_AT_MOST else "")
        warnings.warn(f"{len(bad)} of {len(files)} images in {folder} cannot be decoded: {names}", stacklevel=4)
    return images[: len(kept)], kept


def load_folder(
    name: str, split: str, image_size: int | None, validation: float, bad_images: str, progress: bool
) -> ImageSet:
    """The images of a `split` of the data set `folder:<path>`; see `load`."""
    folder = _existing_folder(name.removeprefix("folder:"))
    listing = _list_folder(folder)
    every = [file for by_class in listing.values() for part in by_class.values() for file in part]
    source = split if split in listing else next(iter(listing))
    by_class = listing[source]
    files = [file for part in by_class.values() for file in part]
    labels = torch.tensor([label for label, part in enumerate(by_class.values()) for _ in part])
    if source != split or (split == "train" and "val" not in listing):
        chosen = indices_of(split, labels, files, validation, TEST_FRACTION if source == "all" else 0)
        files, labels = [files[i] for i in chosen.tolist()], labels[chosen]
    images, kept = _read_images(folder, files, *_survey(folder, every), image_size, bad_images, progress)
    return ImageSet(images, labels[kept], tuple(by_class), tuple(files[i] for i in kept), f"{name} {split}")


def unlabelled(
    path: str | Path, image_size: int | None, channels: int, bad_images: str = "stop", progress: bool = True
) -> ImageSet:
    """The images right in the folder `path`, without labels, as a model for such images takes them; see `load`."""
    check_options(image_size, bad_images)
    folder = _existing_folder(path)
    files = _image_files(folder)
    images, kept = _read_images(folder, files, *_survey(folder, files), image_size, bad_images, progress)
    labels = torch.full((len(kept),), -1)
    return ImageSet(with_channels(images, channels), labels, (), tuple(files[i] for i in kept), f"folder:{path}")
