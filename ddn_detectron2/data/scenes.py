"""The drawn scenes on disk: a COCO-format data set that needs no download.

    scenes/
        train/000001.png ...     pictures
        instances_train.json     annotations, written last: a split without them does not exist

Every file is written beside its place and moved there when complete, by one process at a time, and its content depends
on nothing but the arguments: a writer that was killed starts again and ends with the same files.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from iopath.common.file_io import file_lock
from PIL import Image

from uncertainty_core.checks import check_positive_int
from uncertainty_core.cli import track
from uncertainty_core.io.claims import is_written_for
from uncertainty_core.io.files import write_atomically, write_png

from .coco_check import DatasetError
from .drawing import CATEGORY_IDS, VERSION, draw_scene
from .shapes import CLASSES

NUM_IMAGES = {"train": 200, "val": 100, "test": 200}


def json_path(folder: str | os.PathLike, split: str) -> Path:
    """Where the annotations of a split are."""
    return Path(folder) / f"instances_{split}.json"


def image_folder(folder: str | os.PathLike, split: str) -> Path:
    """Where the pictures of a split are."""
    return Path(folder) / split


def write_scenes(
    folder: str | os.PathLike, split: str, num_images: int | None = None, seed: int = 0, progress: bool = True
) -> Path:
    """Write a split unless it is there, and return the path of its annotations.

    Args:
        folder: of all splits; made if need be. A split that holds other scenes is refused.
        split: any name; splits share no scene.
        num_images: None for the usual number of "train", "val" or "test".
        seed: of all drawings.
        progress: show a bar.
    """
    if num_images is None:
        if split not in NUM_IMAGES:
            raise ValueError(
                f"num_images must be given for split {split!r}: only {', '.join(NUM_IMAGES)} have a usual one"
            )
        num_images = NUM_IMAGES[split]
    check_positive_int("num_images", num_images)
    request = {"version": VERSION, "split": split, "seed": seed, "num_images": num_images}
    path = json_path(folder, split)
    try:
        if _is_written(path, request):
            return path
        with file_lock(str(path)):  # of processes that start together one writes, the others find it written
            if not _is_written(path, request):
                _write(path, request, progress)
    except OSError as error:
        raise DatasetError(f"{folder} cannot hold the scenes ({error}): choose another folder") from None
    return path


def _image_name(index: int) -> str:
    return f"{index + 1:06d}.png"


def _is_written(path: Path, request: dict[str, Any]) -> bool:
    """Whether the split is complete; one that is not the `request` is refused."""
    if not is_written_for(path, request, "scenes", section="info"):
        return False
    folder = image_folder(path.parent, request["split"])
    return all((folder / _image_name(index)).exists() for index in range(request["num_images"]))


def _write(path: Path, request: dict[str, Any], progress: bool) -> None:
    folder = image_folder(path.parent, request["split"])
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    digest = hashlib.sha256()
    description = f"scenes, {request['split']}"
    for index in track(range(request["num_images"]), description, "image", progress):
        scene = draw_scene(request["seed"], request["split"], index)
        height, width, _ = scene.image.shape
        image_id, name = index + 1, _image_name(index)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        annotations += [
            {"id": len(annotations) + number, "image_id": image_id, **annotation}
            for number, annotation in enumerate(scene.annotations, start=1)
        ]
        digest.update(scene.image.tobytes())
        write_png(folder / name, Image.fromarray(scene.image))
    content: dict[str, Any] = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id_, "name": name} for id_, name in zip(CATEGORY_IDS, CLASSES, strict=True)],
    }
    digest.update(json.dumps(content, sort_keys=True).encode())
    # of pixels and annotations, not of files: another version of a PNG library packs the same pixels otherwise
    content["info"] = {"description": "drawn scenes", **request, "fingerprint": digest.hexdigest()}
    write_atomically(path, (json.dumps(content, sort_keys=True) + "\n").encode())
