"""Is a folder the Cityscapes data set, ready for mmsegmentation? Lists what is missing and how to get it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from uncertainty_core.cli import track

NUM_IMAGES = {"train": 2975, "val": 500, "test": 1525}
_IMAGE, _LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png"
_TRAIN_IDS = "_gtFine_labelTrainIds.png"

REGISTER = (
    "register at https://www.cityscapes-dataset.com/register/, download {} from "
    "https://www.cityscapes-dataset.com/downloads/, and unpack it into {}"
)
MAKE_TRAIN_IDS = (
    "make them once with cityscapesscripts: CITYSCAPES_DATASET={} python -m "
    "cityscapesscripts.preparation.createTrainIdLabelImgs"
)


def check_cityscapes(root: str | os.PathLike, deep: bool = False, progress: bool = False) -> list[str]:
    """What keeps a folder from being used as Cityscapes, in sentences that name the remedy; none if it is complete.

    The labels of the test split are not public: nothing of them is asked.

    Args:
        root: the `data_root` of mmsegmentation's `CityscapesDataset`.
        deep: also read every file, which takes minutes.
        progress: show a bar meanwhile.
    """
    root = Path(root)
    packages = {"leftImg8bit": "leftImg8bit_trainvaltest.zip", "gtFine": "gtFine_trainvaltest.zip"}
    problems = [
        f"{root / folder} is missing: " + REGISTER.format(package, root)
        for folder, package in packages.items()
        if not (root / folder).is_dir()
    ]
    if problems:
        return problems
    problems = [problem for split in NUM_IMAGES for problem in _check_split(root, split)]
    if deep:
        problems += _unreadable(root, progress)
    return problems


def _names(folder: Path, suffix: str) -> set[str]:
    """City and name, without suffix, of the files in the cities' folders."""
    return {
        path.relative_to(folder).as_posix().removesuffix(suffix)
        for path in folder.glob(f"*/*{suffix}")
        if path.is_file()
    }


def _check_split(root: Path, split: str) -> Iterator[str]:
    images = _names(root / "leftImg8bit" / split, _IMAGE)
    if len(images) != NUM_IMAGES[split]:
        yield (
            f"{root / 'leftImg8bit' / split} has {len(images)} images, not {NUM_IMAGES[split]}: unpack "
            "leftImg8bit_trainvaltest.zip again"
        )
    if split == "test":
        return
    labels = root / "gtFine" / split
    label_ids, train_ids = _names(labels, _LABELS), _names(labels, _TRAIN_IDS)
    for names, others, what, remedy in (
        (images, label_ids, f"images of {split} have no {_LABELS[1:]}", "unpack gtFine_trainvaltest.zip again"),
        (label_ids, images, f"labels of {split} have no image", "unpack leftImg8bit_trainvaltest.zip again"),
        (label_ids, train_ids, f"labels of {split} have no {_TRAIN_IDS[1:]}", MAKE_TRAIN_IDS.format(root)),
    ):
        lonely = sorted(names - others)
        if lonely:
            yield f"{len(lonely)} of {len(names)} {what}, the first being {lonely[0]}: {remedy}"


def _unreadable(root: Path, progress: bool) -> Iterator[str]:
    """Files that are damaged, and labels of another size than their image."""
    for split in NUM_IMAGES:
        folder = root / "leftImg8bit" / split
        for name in track(sorted(_names(folder, _IMAGE)), split, "image", progress):
            files = [folder / (name + _IMAGE)]
            files += [
                path for end in (_LABELS, _TRAIN_IDS) if (path := root / "gtFine" / split / (name + end)).is_file()
            ]
            yield from _check_files(files)


def _check_files(files: Sequence[Path]) -> Iterator[str]:
    sizes = []
    for path in files:
        try:
            with Image.open(path) as image:
                image.load()
                sizes.append(image.size)
        except (OSError, SyntaxError) as error:  # Pillow's for a damaged PNG
            yield f"{path} cannot be read ({error}): unpack it again"
    if len(set(sizes)) > 1:
        yield f"{files[0]} and its labels have different sizes, {', '.join(map(str, sizes))}: unpack them again"
