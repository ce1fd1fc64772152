"""Images without labels beside labelled ones: a student learns from them what its teacher predicts, and nothing else.

Shapes: H rows, W columns.
"""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import ConcatDataset
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from uncertainty_core.errors import UserError
from uncertainty_core.io.images import find_images

from ..cli import unwrapped

VOID = 255


@TRANSFORMS.register_module()
class LoadNoAnnotations(BaseTransform):
    """In the place of `LoadAnnotations`: all pixels are void, and `PackUncertaintyInputs` marks the image.

    It stands after the loading of the image.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `gt_seg_map` (H, W), uint8, and the mark."""
        results["gt_seg_map"] = np.full(results["img"].shape[:2], VOID, dtype=np.uint8)
        results["seg_fields"] = [*results.get("seg_fields", ()), "gt_seg_map"]
        results["unlabelled"] = True
        results["seg_map_path"] = None  # a mark that mmsegmentation's own PackSegInputs hands on
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _ImageFolder(BaseSegDataset):
    """All images of the folder `data_prefix.img_path`, and of the folders in it."""

    def load_data_list(self) -> list[dict]:
        paths = find_images(Path(self.data_prefix["img_path"])).values()
        return [{"img_path": str(path), "reduce_zero_label": False, "seg_fields": []} for path in paths]


@DATASETS.register_module()
class WithUnlabelledImages(ConcatDataset):
    """A data set, and after its images those of a folder, whose labels are not known.

    They go through the same pipeline, with `LoadNoAnnotations` for `LoadAnnotations`.

    Args:
        dataset: config of the labelled data set.
        images: the folder.
    """

    def __init__(self, dataset: dict, images: str | os.PathLike) -> None:
        labelled, pipeline = DATASETS.build(dataset), without_labels(unwrapped(dataset).get("pipeline", ()))
        unlabelled = _ImageFolder(data_prefix={"img_path": str(images)}, metainfo=labelled.metainfo, pipeline=pipeline)
        super().__init__([labelled, unlabelled], ignore_keys=["label_map", "reduce_zero_label"])  # of labels


def without_labels(pipeline: Sequence[dict]) -> list[dict]:
    """A pipeline that loads no labels, but is otherwise the same; UserError unless it loads them once."""
    loads = [transform["type"].split(".")[-1] == "LoadAnnotations" for transform in pipeline]
    if sum(loads) != 1:
        raise UserError(
            "unlabelled images take the pipeline of a single data set, with one LoadAnnotations to leave out"
        )
    replaced = zip(pipeline, loads, strict=True)
    return [{"type": "LoadNoAnnotations"} if load else copy.deepcopy(transform) for transform, load in replaced]


def unlabelled_images(cfg: Config) -> str | None:
    """The folder of unlabelled images that a config also trains on; None where there is none."""
    dataset = cfg.train_dataloader.dataset
    while dataset.type != WithUnlabelledImages.__name__:
        if "dataset" not in dataset:
            return None
        dataset = dataset.dataset
    return dataset.images


def with_unlabelled_images(cfg: Config, images: str | os.PathLike) -> Config:
    """A copy of `cfg` that also trains on the images of a folder, without labels."""
    cfg = cfg.copy()
    dataset = {"type": "WithUnlabelledImages", "dataset": cfg.train_dataloader.dataset, "images": str(images)}
    cfg.train_dataloader = {**cfg.train_dataloader, "dataset": dataset}
    return cfg
