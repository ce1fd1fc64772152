"""Images in memory: data sets by name or from a folder, their splits, and what is done to a batch on its way in.

These data sets are small, so a data set is a few tensors: there is no loader and no worker. Nothing here touches the
global random state: splits are decided by hashes of the images' ids, augmentation draws from the generator it is given.

Shapes: N images, C channels, H rows, W columns.
"""

import gzip
import hashlib
import json
import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from uncertainty_core import derive_seed
from uncertainty_core.checks import check_labels

SPLITS = ("train", "val", "test")
TEST_FRACTION = 0.2  # of a folder that has no split of its own
MEMORY_LIMIT = 8 * 2**30  # bytes that the images of one split may take
_DOWNLOAD_ERRORS = (RuntimeError, OSError, HTTPException)
_NAMED_AT_MOST = 10  # undecodable images in a warning
_CHUNK = 256  # images that are turned into wider numbers at a time


class DataError(ValueError):
    """Data that cannot be used as they are; the message says in one sentence why."""


def _check_choice(what: str, choice: str, choices: Sequence[str]) -> None:
    if choice not in choices:
        raise DataError(f"{what} must be one of {', '.join(choices)}, got {choice!r}")


def _check_options(image_size: int | None, bad_images: str) -> None:
    _check_choice("bad_images", bad_images, ("stop", "skip"))
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size must be at least one pixel, got {image_size}")


def _check_memory(what: str, *shape: int) -> None:
    if math.prod(shape) > MEMORY_LIMIT:
        raise DataError(
            f"the {shape[0]} images of {what} would take {math.prod(shape) / 2**30:.1f} GiB of memory as "
            f"{'x'.join(map(str, shape[1:]))}, more than {MEMORY_LIMIT / 2**30:.1f} GiB: choose a smaller image_size"
        )


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

    def fingerprint(self) -> str:
        """SHA-256 of images, labels, classes and ids."""
        digest = hashlib.sha256(json.dumps([self.images.shape, self.classes, self.ids]).encode())
        digest.update(self.images.flatten().cpu().numpy())
        digest.update(self.labels.contiguous().cpu().numpy())
        return digest.hexdigest()


# --- batches -----------------------------------------------------------------------------------------------------


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and standard deviation (C,) of `images` (N, C, H, W) uint8 on [0, 1]: float64, from exact counts."""
    if images.numel() == 0:
        raise ValueError("images must hold at least one image to have a mean")
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in images.split(_CHUNK):
        counts += torch.stack([channel.flatten().bincount(minlength=256) for channel in part.unbind(1)]).cpu()
    share = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    mean = share @ values
    return mean, (share * (values - mean[:, None]) ** 2).sum(1).sqrt()


def to_float(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(images / 255 - mean) / std as float32; uint8 `images` (N, C, H, W), `mean` and `std` (C,).

    A constant channel (std 0) is only centred.
    """
    std = std.double().where(std > 0, 1.0)
    scale, shift = (1 / (255 * std)).float(), (-mean.double() / std).float()
    return (images * scale.to(images.device).view(-1, 1, 1)).add_(shift.to(images.device).view(-1, 1, 1))


def _uniform(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Drawn where the generator lives, so that one on the CPU gives every device the same numbers."""
    return torch.rand(*shape, generator=generator, device=generator.device).to(device)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each of `images` (N, C, H, W), left to right, with probability 1/2.

    This is the augmentation of the dropout distillation paper: it says "vertically flip", by which mirrored images
    are meant, reflected at the vertical axis; upside-down cars and digits are in no test set.
    """
    mirrored = _uniform((len(images), 1, 1, 1), generator, images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad `images` (N, C, H, W) with zeros on all sides and cut each back to H x W at a place of its own."""
    height, width = images.shape[2:]
    padded = F.pad(images, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, top, left, H, W), a view
    corners = torch.randint(2 * padding + 1, (2, len(images)), generator=generator, device=generator.device)
    top, left = corners.to(images.device)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def drop_pixels(images: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Set each pixel of `images` (N, C, H, W), all its channels together, to zero with probability `p`.

    With p = 0.2 on training images: the perturbed unlabelled set of the dropout distillation paper.
    """
    dropped = _uniform((len(images), 1, *images.shape[2:]), generator, images.device) < p
    return images.masked_fill(dropped, 0)


def resize(images: Tensor, size: int) -> Tensor:
    """`images` (N, C, H, W) uint8 as (N, C, size, size): bilinear with antialias, stretched where not square."""
    if images.shape[2:] == (size, size):
        return images
    small = (
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True) for part in images.split(_CHUNK)
    )
    return torch.cat([part.round_().byte() for part in small])


def _with_channels(images: Tensor, channels: int) -> Tensor:
    """`images` (N, C, H, W) uint8 with so many channels: grey is repeated, colour becomes luma."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.repeat(1, channels, 1, 1)
    if (images.shape[1], channels) != (3, 1):
        raise ValueError(f"channels must be 1 or 3 or the images' own {images.shape[1]}, got {channels}")
    luma = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(3, 1, 1)  # ITU-R 601 in 16 bits, as Pillow's "L"
    return torch.cat([((part * luma).sum(1, keepdim=True) + 2**15 >> 16).byte() for part in images.split(_CHUNK)])


def adapt(image_set: ImageSet, channels: int, size: int) -> ImageSet:
    """`image_set` as a model for other images takes it, for out-of-distribution sets: channels and size are changed."""
    return replace(image_set, images=resize(_with_channels(image_set.images, channels), size))


# --- splits ------------------------------------------------------------------------------------------------------


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


def _indices_of(split: str, labels: Tensor, ids: Sequence[int | str], validation: float, test: float = 0) -> Tensor:
    """Where `split` is when `test` of the images are set aside first, and `validation` of the rest then."""
    rest, tested = stratified_split(labels, ids, test, "test")
    train, val = stratified_split(labels[rest], [ids[i] for i in rest], validation, "validation")
    return {"train": rest[train], "val": rest[val], "test": tested}[split]


# --- data sets by name -------------------------------------------------------------------------------------------


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _not_found(name: str, folder: Path, files: Sequence[str], failure: Exception | None = None) -> DataError:
    if failure is not None:
        return DataError(f"{name} could not be downloaded to {folder}: {_one_line(failure)}")
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
        raise DataError(f"{path} is no idx file ({_one_line(error)}): remove it and fetch it with --download") from None


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
    from sklearn.datasets import load_digits  # takes a second, which only this data set is to cost

    digits = load_digits()
    order = sorted(range(len(digits.target)), key=lambda i: derive_seed(name, i))
    ids = sorted(order[:1000] if train else order[1000:])
    images = torch.from_numpy(digits.images[ids] * (255 / 16)).round().byte()  # their values are 0 ... 16
    return ImageSet(images[:, None], torch.from_numpy(digits.target[ids]), tuple("0123456789"), tuple(ids), name)


# --- image folders -----------------------------------------------------------------------------------------------


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
    _check_memory(str(folder), len(files), channels, height, width)
    images = torch.empty(len(files), channels, height, width, dtype=torch.uint8)
    kept: list[int] = []
    bad: list[str] = []
    for index, file in enumerate(tqdm(files, desc=folder.name, unit="image", disable=not (progress and files))):
        try:
            image = _decode(folder / file, channels, image_size)
        except Exception as error:  # decoders raise nearly anything at broken files
            if bad_images == "stop":
                raise DataError(
                    f"{folder / file} cannot be decoded ({_one_line(error)}): "
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


def _load_folder(
    name: str, split: str, image_size: int | None, validation: float, bad_images: str, progress: bool
) -> ImageSet:
    folder = _existing_folder(name.removeprefix("folder:"))
    listing = _list_folder(folder)
    every = [file for by_class in listing.values() for part in by_class.values() for file in part]
    source = split if split in listing else next(iter(listing))
    by_class = listing[source]
    files = [file for part in by_class.values() for file in part]
    labels = torch.tensor([label for label, part in enumerate(by_class.values()) for _ in part])
    if source != split or (split == "train" and "val" not in listing):
        chosen = _indices_of(split, labels, files, validation, TEST_FRACTION if source == "all" else 0)
        files, labels = [files[i] for i in chosen.tolist()], labels[chosen]
    images, kept = _read_images(folder, files, *_survey(folder, every), image_size, bad_images, progress)
    return ImageSet(images, labels[kept], tuple(by_class), tuple(files[i] for i in kept), f"{name} {split}")


def unlabelled(
    path: str | Path, image_size: int | None, channels: int, bad_images: str = "stop", progress: bool = True
) -> ImageSet:
    """The images right in the folder `path`, without labels, as a model for such images takes them; see `load`."""
    _check_options(image_size, bad_images)
    folder = _existing_folder(path)
    files = _image_files(folder)
    images, kept = _read_images(folder, files, *_survey(folder, files), image_size, bad_images, progress)
    labels = torch.full((len(kept),), -1)
    return ImageSet(_with_channels(images, channels), labels, (), tuple(files[i] for i in kept), f"folder:{path}")


# --- all of them -------------------------------------------------------------------------------------------------


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
    _check_choice("split", split, SPLITS)
    _check_options(image_size, bad_images)
    if name.startswith("folder:"):
        return _load_folder(name, split, image_size, validation, bad_images, progress)
    _check_choice("data set", name, (*_READERS, "folder:<path>"))
    whole = _READERS[name](name, Path(root).expanduser(), split != "test", download)
    if split != "test":
        whole = whole.subset(_indices_of(split, whole.labels, whole.ids, validation))
    if image_size is not None:
        _check_memory(name, len(whole), whole.images.shape[1], image_size, image_size)
        if name == "mnist" and image_size in (30, 32):  # black already is what surrounds these digits
            whole = replace(whole, images=F.pad(whole.images, [(image_size - 28) // 2] * 4))
        whole = replace(whole, images=resize(whole.images, image_size))
    return replace(whole, name=f"{name} {split}")
