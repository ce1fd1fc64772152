"""A teacher's targets in mmsegmentation's pipelines: loaded, moved with their image, and packed.

`gt_uncertainty`, its kin, `gt_probabilities` and `real_pixels` travel among the `seg_fields`, so mmsegmentation's own
transforms do to them what they do to labels: nearest neighbour, and 255 wherever an image is padded.

Shapes: H rows, W columns, C classes, k entries of a coded distribution.
"""

import os
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS

from uncertainty_core import TargetStore, TargetStoreError
from uncertainty_core.errors import UserError

from ..models.consensus import FIELDS as UNCERTAINTIES
from ..models.maps import PADDING
from .codec import read_maps

FIELDS = (*(f"gt_{field}" for field in UNCERTAINTIES.values()), "gt_probabilities", "real_pixels")


def _add_field(results: dict[str, Any], name: str, values: np.ndarray) -> None:
    results[name] = values
    # a list of its own: the data set may share its own between epochs
    results["seg_fields"] = [*results.get("seg_fields", ()), name]


@TRANSFORMS.register_module()
class LoadUncertaintyTarget(BaseTransform):
    """Adds the stored target of an image as `gt_uncertainty`, (H, W) or, class by class, (H, W, C), float32.

    So are other uncertainties that the store has: `gt_entropy`, `gt_mutual_information` (H, W). The teacher's
    probabilities are `gt_probabilities`, (H, W, k), uint16, as `encode_top_k` has them.
    It stands after the loading of the image and before anything that changes its geometry.

    Args:
        store: folder that `tools/generate_targets.py --task segmentation` wrote; opened by each process on first use.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self._opened: TargetStore | None = None

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the field."""
        if self._opened is None:
            self._opened = TargetStore(self.store)
        path = results["img_path"]
        height, width = results["img"].shape[:2]
        for name, target in read_maps(path, self._opened).items():
            if target.shape[-2:] != (height, width):
                raise TargetStoreError(
                    f"the target for {path} in {self.store} has {target.shape[-1]} x {target.shape[-2]} pixels and the "
                    f"image {width} x {height}: load it before the image is resized, or generate the targets again"
                )
            values = target.numpy()
            if values.ndim == 3:
                values = np.ascontiguousarray(values.transpose(1, 2, 0))
            _add_field(results, f"gt_{name}", values)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(store={os.fspath(self.store)!r})"


@TRANSFORMS.register_module()
class MarkRealPixels(BaseTransform):
    """Adds `real_pixels` (H, W), uint8: 0 now, and 255 wherever later transforms pad.

    For trainings with an online teacher whose pipeline pads; it stands before anything that changes the geometry.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the field."""
        _add_field(results, "real_pixels", np.zeros(results["img"].shape[:2], dtype=np.uint8))
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@TRANSFORMS.register_module()
class Pad(mmcv.transforms.Pad):
    """mmcv's `Pad`, which knows one field of labels, for the fields of this package too; nothing else changes."""

    def _pad_seg(self, results: dict[str, Any]) -> None:
        super()._pad_seg(results)
        for name in FIELDS:
            if name in results:
                values = results[name]
                (height, width), (rows, columns) = results["pad_shape"][:2], values.shape[:2]
                margins = [(0, height - rows), (0, width - columns)] + [(0, 0)] * (values.ndim - 2)
                # padding is no pixel of the image in any of the padding modes
                results[name] = np.pad(values, margins, constant_values=PADDING)


@TRANSFORMS.register_module()
class PackUncertaintyInputs(PackSegInputs):
    """`PackSegInputs` that also packs the fields of this package as `PixelData`, channels first.

    `gt_uncertainty` (1 or C, H, W) and its kin are float32: in [0, 1], or 255 at a padded pixel.
    `gt_probabilities` (k, H, W) is int32: codes of at least 256, or 255 at a padded pixel.
    `real_pixels` (1, H, W) is uint8: 0, or 255 at a padded pixel. What `LoadNoAnnotations` marks has "unlabelled" in
    its meta information.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack."""
        packed = super().transform(results)
        if results.get("unlabelled"):
            packed["data_samples"].set_metainfo({"unlabelled": True})
        shape = results["img"].shape[:2]
        for name in FIELDS:
            if name not in results:
                continue
            values = np.atleast_3d(results[name]).transpose(2, 0, 1)
            if values.shape[1:] != shape:
                raise UserError(
                    f"{name} of {results['img_path']} has shape {values.shape[1:]} and the image {shape}: "
                    "the pipeline changes the geometry with a transform that leaves seg_fields as they are"
                )
            packed["data_samples"].set_data({name: PixelData(data=torch.from_numpy(_mark_padding(name, values)))})
        return packed


def _mark_padding(name: str, values: np.ndarray) -> np.ndarray:
    """Values (C, H, W) of a field, contiguous, with PADDING in all channels where the first is none of a real pixel.

    OpenCV's borders have a colour of four channels: of 255 it fills only the first of each four.
    """
    if name == "gt_probabilities":
        return np.where(values[:1] > PADDING, values, PADDING).astype(np.int32)  # torch knows little of uint16
    real = (values[:1] >= 0) & (values[:1] <= 1)
    return np.where(real, values, values.dtype.type(PADDING))
