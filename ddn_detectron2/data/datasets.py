"""Data sets by name in Detectron2's catalogs, and whether a model and its data sets go together."""

import argparse
import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from uncertainty_core.cli.flags import OWN, SPLITS

from .coco_check import DatasetError, check_coco
from .drawing import CATEGORY_IDS
from .scenes import NUM_IMAGES, image_folder, json_path, write_scenes
from .shapes import CLASSES


def register_scenes(folder: str | os.PathLike | None = None) -> None:
    """Make the drawn scenes known as scenes_train, scenes_val and scenes_test; they are drawn when first loaded.

    Args:
        folder: where they are kept; None for scenes/ in $DETECTRON2_DATASETS, which is ./datasets unless set.
    """
    if folder is None:
        folder = Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser() / "scenes"
    for split in NUM_IMAGES:
        _register(
            f"scenes_{split}",
            json_path(folder, split),
            image_folder(folder, split),
            prepare=lambda split=split: write_scenes(folder, split),
            thing_classes=list(CLASSES),
            thing_dataset_id_to_contiguous_id={id_: index for index, id_ in enumerate(CATEGORY_IDS)},
        )


def register_own(args: argparse.Namespace) -> dict[str, str]:
    """Make the data sets known that the flags of a command line name; their names by the key that each replaces."""
    names = {}
    for split, key in SPLITS.items():
        json_file, images = getattr(args, f"{split}_json"), getattr(args, f"{split}_images")
        if json_file is not None:
            names[key] = f"{OWN}{split}"
            register_coco_format(names[key], json_file, images)
    return names


def register_coco_format(name: str, json_file: str | os.PathLike, image_root: str | os.PathLike) -> None:
    """Make a COCO-format data set known under a name, having checked the whole of it; DatasetError if it is unusable.

    Args:
        name: for cfg.DATASETS.TRAIN and TEST.
        json_file: COCO instances.
        image_root: what the file names in it start from.
    """
    truth = check_coco(json_file, image_root)
    ids = {id_: index for index, id_ in enumerate(truth.category_ids)}
    _register(name, json_file, image_root, thing_classes=truth.category_names, thing_dataset_id_to_contiguous_id=ids)


def _register(
    name: str,
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    prepare: Callable[[], Any] | None = None,
    **metadata: Any,
) -> None:
    """As Detectron2's register_coco_instances; the same again is no error, and `prepare` may make the files."""
    json_file, image_root = os.path.abspath(json_file), os.path.abspath(image_root)
    if is_registered(name, json_file, image_root):
        return

    def load() -> list[dict[str, Any]]:
        if prepare is not None:
            prepare()
        return load_coco_json(json_file, image_root, name)

    DatasetCatalog.register(name, load)
    # evaluators look for json_file before anything is loaded
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type="coco",
        made_when_loaded=prepare is not None,
        **metadata,
    )


def is_registered(name: str, json_file: str | None, image_root: str) -> bool:
    """Whether these very files, given by absolute paths, are known under the name; DatasetError if others are."""
    if name not in DatasetCatalog:
        return False
    known = MetadataCatalog.get(name)
    if (known.get("json_file"), known.get("image_root")) != (json_file, image_root):
        taken_by = known.get("json_file") or known.get("image_root") or "another data set"
        raise DatasetError(f"the name {name} is taken by {taken_by}: give {json_file or image_root} another name")
    return True


def _check_registered(dataset_name: str) -> None:
    """Raise DatasetError if Detectron2 knows no data set of this name."""
    if dataset_name not in DatasetCatalog:
        near = difflib.get_close_matches(dataset_name, DatasetCatalog, n=1)
        hint = f"did you mean {near[0]}" if near else f"known are {', '.join(sorted(DatasetCatalog))}"
        raise DatasetError(f"{dataset_name} is not registered; {hint}; register your own with register_coco_format")


def _thing_classes(dataset_name: str) -> list[str]:
    """The classes of a registered data set, which is loaded if its metadata do not name them."""
    _check_registered(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("thing_classes") is None:
        DatasetCatalog.get(dataset_name)
    names = metadata.get("thing_classes")
    if names is None:
        raise DatasetError(
            f"{dataset_name} has no names of classes: set MetadataCatalog.get({dataset_name!r}).thing_classes"
        )
    return names


def check_on_disk(dataset_names: Sequence[str]) -> None:
    """Raise DatasetError where files of a data set are not there, but for those that are made when first loaded."""
    for dataset_name in dataset_names:
        _check_registered(dataset_name)
        metadata = MetadataCatalog.get(dataset_name)
        for key in ("json_file", "image_root"):
            path = metadata.get(key)
            if path and "://" not in path and not metadata.get("made_when_loaded") and not os.path.exists(path):
                raise DatasetError(
                    f"{dataset_name} is not on disk, there is no {path}: set the environment variable "
                    "DETECTRON2_DATASETS to the folder of Detectron2's data sets, or name data of your own"
                )


def check_num_classes(dataset_names: Sequence[str], num_classes: int) -> None:
    """Raise DatasetError unless each data set has `num_classes`, cfg.MODEL.ROI_HEADS.NUM_CLASSES."""
    for dataset_name in dataset_names:
        names = _thing_classes(dataset_name)
        if len(names) != num_classes:
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise DatasetError(
                f"{dataset_name} has {len(names)} classes ({shown}) and the model's head {num_classes}: "
                f"set MODEL.ROI_HEADS.NUM_CLASSES {len(names)}"
            )


def check_same_categories(dataset_names: Sequence[str]) -> None:
    """Raise DatasetError unless all data sets, of training and of evaluation, have the same classes in order."""
    for dataset_name in dataset_names[1:]:
        first, other = _thing_classes(dataset_names[0]), _thing_classes(dataset_name)
        if first != other:
            only = [name for name in (*first, *other) if (name in first) != (name in other)]
            what = f"only one of them has {only[0]!r}" if only else "the same ones in another order of ids"
            raise DatasetError(
                f"{dataset_names[0]} and {dataset_name} have different classes ({what}): "
                "give both json files the same 'categories'"
            )
