"""Folders of images without labels: which files are images, and where results may go."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import write_atomically
from .strict_json import strict_json

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_NAMED_AT_MOST = 5  # unreadable images in a message


def images_in(folder: Path) -> dict[str, Path]:
    """The files of a folder and of the folders in it whose names end as those of images do.

    By their paths from there, with "/", in alphabetical order. What is hidden (".name") is passed over.
    """
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    found = {name: names[name] for name in sorted(names) if not any(part.startswith(".") for part in name.split("/"))}
    if not found:
        raise UserError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    return found


def find_images(images: Path) -> dict[str, Path]:
    """`images_in` a folder whose results are to have their names, or one file."""
    if images.is_file():
        return {images.name: images}
    if not images.is_dir():
        raise UserError(f"there is no folder and no image {images}")
    found = images_in(images)
    stems: dict[str, str] = {}
    for name in found:
        other = stems.setdefault(name.rpartition(".")[0], name)
        if other != name:
            raise UserError(f"{images} holds {other} and {name}, whose results would have one name: rename one of them")
    return found


def check_apart(images: Path, output: Path, kinds: Iterable[str]) -> None:
    """Raise UserError if what is written would be taken for images, or written over them.

    Args:
        images: a folder, or one file.
        output: folder of the results.
        kinds: folders in it that hold pictures.
    """
    shown, root = images.resolve(), output.resolve()
    if images.is_file():
        mixed = root == shown.parent
    else:
        written = [root / kind for kind in kinds]
        mixed = any(shown == path or shown in path.parents or path in shown.parents for path in written)
    if mixed:
        raise UserError(f"results in {output} and the images of {images} would mix: choose another folder")


def claim_predictions(root: Path, fingerprint: Mapping[str, Any], kinds: Iterable[str], others: str) -> None:
    """Note in predictor.json what predicts into a folder, which is made if need be.

    Args:
        root: the folder; UserError if it holds predictions by another predictor, or is of other use.
        fingerprint: JSON values of all that decides what is predicted.
        kinds: folders in it.
        others: what it holds where another predictor wrote there, for the message.
    """
    record, content = root / "predictor.json", strict_json(dict(fingerprint)).encode()
    if record.exists():
        if record.read_bytes() != content:
            raise UserError(f"{root} holds {others}: choose another folder, or remove it")
    elif taken := [kind for kind in kinds if (root / kind).exists()]:
        raise UserError(f"{root} holds {taken[0]}/ but no predictor.json, so it is of other use: choose another")
    else:
        root.mkdir(parents=True, exist_ok=True)
        write_atomically(record, content)


def unreadable_error(unreadable: Sequence[str], total: int) -> UserError:
    """For the end of a run that left these images out, of `total`."""
    names = ", ".join(unreadable[:_NAMED_AT_MOST]) + (", ..." if len(unreadable) > _NAMED_AT_MOST else "")
    return UserError(
        f"{len(unreadable)} of {total} images cannot be read and are left out: {names}: repair or remove them; "
        "what was predicted of the others is kept"
    )
