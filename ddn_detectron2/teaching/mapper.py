"""Training data with the teacher's targets, which stay with their boxes through flips, resizes, crops and filters.

Shapes: G ground-truth boxes, K foreground classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode
from torch import Tensor

from uncertainty_core import TargetStore, TargetStoreError

from .target_matching import TEACHER_LOGITS


def not_crowd(annotations: list[dict]) -> list[dict]:
    """The annotations that `DatasetMapper` trains on, in order; targets are stored in this order."""
    return [annotation for annotation in annotations if annotation.get("iscrowd", 0) == 0]


def corner_boxes(annotations: list[dict]) -> Tensor:
    """Their boxes (G, 4) as corners, in pixels of the original image."""
    boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


class DDNDatasetMapper(DatasetMapper):
    """`DatasetMapper` that gives each ground-truth box its target logits (K + 1) from a store.

    Boxes of an image that the store lacks get rows of NaN: no target.
    """

    @configurable
    def __init__(
        self, is_train: bool, *, store: Mapping[int | str, Mapping[str, Tensor]], num_logits: int, **kwargs
    ) -> None:
        """
        Args:
            is_train, kwargs: as `DatasetMapper`.
            store: by image id "logits" (G, K + 1) and, to know them by, "boxes" (G, 4), see `corner_boxes`.
            num_logits: K + 1.
        """
        super().__init__(is_train, **kwargs)
        self.store, self.num_logits = store, num_logits

    @classmethod
    def from_config(cls, cfg, is_train: bool = True):
        """The config's values."""
        return super().from_config(cfg, is_train) | {
            "store": TargetStore(cfg.MODEL.DDN.TARGETS.STORE),
            "num_logits": cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """As `DatasetMapper`, with `TEACHER_LOGITS` in "instances"."""
        if "annotations" not in dataset_dict:
            return super().__call__(dataset_dict)
        annotations = not_crowd(dataset_dict["annotations"])
        targets = self._targets(dataset_dict["image_id"], corner_boxes(annotations))
        classes = torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64)
        # Detectron2 drops and reorders boxes in many places and hands on their class from all of them: for the way
        # through, the class is the number of the annotation
        numbered = [a | {"category_id": number} for number, a in enumerate(annotations)]
        mapped = super().__call__(dataset_dict | {"annotations": numbered})
        if "instances" in mapped:
            number = mapped["instances"].gt_classes
            mapped["instances"].gt_classes = classes[number]
            mapped["instances"].set(TEACHER_LOGITS, targets[number])
        return mapped

    def _targets(self, image_id: int | str, boxes: Tensor) -> Tensor:
        if image_id not in self.store:
            return torch.full((len(boxes), self.num_logits), torch.nan)
        target = self.store[image_id]
        if not torch.equal(target["boxes"], boxes):
            raise TargetStoreError(f"the targets of image {image_id} are for other boxes: generate them again")
        return target["logits"]
