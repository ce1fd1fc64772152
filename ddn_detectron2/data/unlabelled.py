"""Images without labels, of which students learn from the teacher alone: a folder, or what a COCO file names."""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from uncertainty_core import derive_seed
from uncertainty_core.io.images import images_in

from .coco_check import DatasetError, check_images, image_size
from .datasets import is_registered

_LABELS = ("annotations", "sem_seg_file_name", "pan_seg_file_name", "segments_info")


def register_unlabelled(name: str, image_root: str | os.PathLike, json_file: str | os.PathLike | None = None) -> None:
    """Make images known under a name, for cfg.MODEL.DDN.UNLABELLED; UserError if there are none.

    Args:
        name: of the data set.
        image_root: folder of the images.
        json_file: COCO file that names those to take; what else is in it is not looked at. None for all in the folder.
    """
    if json_file is None:
        images = [{"id": name, "file_name": name} for name in images_in(Path(image_root))]
    else:
        images = _in_file(json_file, image_root)
    image_root, json_file = os.path.abspath(image_root), json_file and os.path.abspath(json_file)
    if not is_registered(name, json_file, image_root):
        DatasetCatalog.register(name, functools.cache(functools.partial(_dicts, images, Path(image_root))))
        MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root)


def unlabelled_dicts(names: Sequence[str]) -> list[dict[str, Any]]:
    """Detectron2's dicts of the images of registered data sets, without what labels they have."""
    images = [image for name in names for image in DatasetCatalog.get(name)]
    return [{key: value for key, value in image.items() if key not in _LABELS} for image in images]


def images_fingerprint(name: str) -> str:
    """What tells the images of a data set from others, wherever they are: names, sizes, and bytes of their files."""
    parts: list[int | str] = []
    for image in unlabelled_dicts([name]):
        path = Path(image["file_name"])
        parts += [path.name, image["height"], image["width"], path.stat().st_size]
    return f"{derive_seed(*parts):016x}"


def _in_file(json_file: str | os.PathLike, image_root: str | os.PathLike) -> list[dict[str, Any]]:
    try:
        images = json.loads(Path(json_file).read_bytes())["images"]
        known = all(isinstance(image, dict) and "id" in image for image in images)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known or not images:
        raise DatasetError(f"{json_file} is no COCO file that names images: it needs 'images', each with an 'id'")
    check_images(json_file, images, image_root)
    return images


def _dicts(images: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    found = []
    for image in images:
        path = folder / image["file_name"]
        width, height = (image[k] for k in ("width", "height")) if "width" in image else image_size(path)
        found.append({"file_name": str(path), "height": height, "width": width, "image_id": image["id"]})
    return found
