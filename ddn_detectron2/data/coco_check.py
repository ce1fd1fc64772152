"""Is a COCO-format data set fit for a training and its evaluations? Checked before they begin."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from uncertainty_core.detection.coco_format import CocoFormatError, GroundTruth, read_ground_truth
from uncertainty_core.errors import UserError

_LOOKED_INTO = 16  # images of a data set whose sizes are compared: headers alone, spread over all of it
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # of EXIF: Detectron2 turns these pictures

logger = logging.getLogger(__name__)


class DatasetError(UserError):
    """A data set that cannot be used; the message is one sentence that names it, what is wrong and the remedy."""


def check_coco(json_file: str | os.PathLike, image_root: str | os.PathLike) -> GroundTruth:
    """Read a COCO instances file for Detectron2; DatasetError if a training or an evaluation would fail on it.

    Boxes without an area are no error, since trainings leave them out, but are counted in a warning.
    """
    try:
        ground_truth = read_ground_truth(Path(json_file))
    except CocoFormatError as error:
        raise DatasetError(str(error)) from None
    content = json.loads(Path(json_file).read_bytes())
    for section in ("images", "categories"):
        if not content[section]:
            raise DatasetError(f"{json_file} has no {section}: is it the file that was meant?")
    _check_annotations(json_file, content["annotations"])
    check_images(json_file, content["images"], image_root)
    return ground_truth


def _check_annotations(json_file: str | os.PathLike, annotations: Sequence[dict[str, Any]]) -> None:
    """What Detectron2 and pycocotools take for granted and end without an explanation where it is not so."""
    for annotation in annotations:
        where = f"{json_file}: annotation {annotation['id']}"
        for key in ("area", "iscrowd"):
            if key not in annotation:
                raise DatasetError(f"{where} has no {key!r}, which pycocotools needs: add it to every annotation")
        if annotation.get("ignore"):
            raise DatasetError(f"{where} has 'ignore', which Detectron2 does not know: use 'iscrowd', or remove it")
    empty = [annotation for annotation in annotations if min(annotation["bbox"][2:]) == 0]
    if empty:
        logger.warning(
            f"{json_file}: {len(empty)} of {len(annotations)} boxes have no area and teach nothing; "
            f"the first is annotation {empty[0]['id']} with the bbox {empty[0]['bbox']}"
        )


def check_images(json_file: str | os.PathLike, images: Sequence[dict[str, Any]], image_root: str | os.PathLike) -> None:
    """Raise DatasetError unless all `images` of a COCO instances file are in their folder."""
    folder = Path(image_root)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder: give the one that the file names in {json_file} start from")
    for image in images:
        if not isinstance(image.get("file_name"), str):
            raise DatasetError(f"{json_file}: image {image['id']} has no 'file_name': name its file in {folder}")
    missing = [image["file_name"] for image in images if not (folder / image["file_name"]).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DatasetError(
            f"{folder} lacks {missing[0]}{more} of the {len(images)} images that {json_file} names: "
            "complete it, or give the folder that they are in"
        )
    for image in images[:: max(1, len(images) // _LOOKED_INTO)]:
        _check_size(json_file, image, folder / image["file_name"])


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The picture at `path`; DatasetError if it is damaged or huge, also where this shows inside."""
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's
        raise DatasetError(f"{path} cannot be decoded ({error}): get it again") from None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the picture as Detectron2 turns it, read from its header."""
    with opened(path) as picture:
        width, height = picture.size
        return (height, width) if picture.getexif().get(_ORIENTATION) in _ON_ITS_SIDE else (width, height)


def _check_size(json_file: str | os.PathLike, image: dict[str, Any], path: Path) -> None:
    width, height = image_size(path)
    declared = image.get("width", width), image.get("height", height)
    if declared != (width, height):
        raise DatasetError(
            f"{path} has {width} x {height} pixels and {json_file} says {declared[0]} x {declared[1]}: correct "
            "'width' and 'height' in it, and its boxes with them"
        )
