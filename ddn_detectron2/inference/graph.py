"""Detectors as one graph, from the bytes of an image to its detections.

Shapes: N detections, K foreground classes, H x W pixels.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from detectron2.modeling.roi_heads import fast_rcnn
from torch import Tensor, nn

from uncertainty_core import state_dict_sha256
from uncertainty_core.errors import UserError
from uncertainty_core.export import IMAGE, Description, Graph, noise, versions_of
from uncertainty_core.recalibration import ProbabilityCalibrator, ScoreCalibrator

from ..teaching import sampling

_MEANINGS = {
    "boxes": "x1, y1, x2, y2 in pixels of the graph's input (N, 4)",
    "scores": "of the predicted classes, the highest first unless a calibrator is class-wise (N,)",
    "classes": "the predicted ones (N,), int64",
    "class_probs": "probabilities of all classes (N, K), and with a softmax of the background, the last (N, K + 1)",
    "box_std": "deviation of each side of the box in pixels of the graph's input (N, 4)",
}
_FIELDS = {"boxes": "pred_boxes", "classes": "pred_classes"}


class DetectorGraph(nn.Module):
    """From an image, bytes (1, H, W, 3) in RGB, to a tuple of what `outputs` names; masks and keypoints are left out.

    Args:
        model: a detector with ROI heads, in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        heads = getattr(model, "roi_heads", None)
        if heads is None:
            raise UserError(f"{type(model).__name__} has no ROI heads, and graphs are made of detectors that have them")
        settings = getattr(heads, "test_settings", None)
        if settings is not None and (settings.mc_samples or settings.ensemble):
            raise UserError(
                "a graph runs once, and MODEL.DDN.TEST asks for many passes: set MC_SAMPLES 0 and ENSEMBLE False"
            )
        self.model = copy.deepcopy(model)
        self.model.roi_heads.mask_on = self.model.roi_heads.keypoint_on = False
        names = ["boxes", "scores", "classes"]
        names += ["class_probs"] * (settings is not None and settings.class_probs)
        names += ["box_std"] * (getattr(getattr(heads, "last_predictor", None), "box_std", None) is not None)
        self.outputs = {name: _MEANINGS[name] for name in names}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs."""
        pixels = image[0].permute(2, 0, 1)
        if self.model.input_format == "BGR":
            pixels = pixels.flip(0)
        with _lengths_of_tensors():
            images = self.model.preprocess_image([{"image": pixels.float()}])
            features = self.model.backbone(images.tensor)
            proposals, _ = self.model.proposal_generator(images, features, None)
            (found,), _ = self.model.roi_heads(images, features, proposals, None)
        fields = (found.get(_FIELDS.get(name, name)) for name in self.outputs)
        return tuple(getattr(field, "tensor", field) for field in fields)


@contextmanager
def _lengths_of_tensors() -> Iterator[None]:
    """Where predictions are split by the number of boxes, `len` gives what torch can trace, and no mere integer.

    It is what Detectron2's own exporter does, which version 0.5 cannot import without Caffe2.
    """

    def length(values: Any) -> Any:
        return values.__len__()

    with ExitStack() as stack:
        for module in (fast_rcnn, sampling):
            stack.enter_context(mock.patch.object(module, "len", length, create=True))
        yield


def detector_graph(model: nn.Module, classes: Sequence[str], example: Tensor, any_size: bool = True) -> Graph:
    """The graph of a student, or of any R-CNN of Detectron2, for one image at a time.

    Args:
        model: in eval mode.
        classes: names.
        example: an image that it is traced on, uint8 (1, H, W, 3).
        any_size: whether the file is to take images of other sizes, too.
    """
    module = DetectorGraph(model).eval()
    _, height, width, _ = example.shape
    size = "H, W" if any_size else f"{height}, {width}"
    description = Description(
        task="detection",
        classes=tuple(classes),
        input=f"uint8 (1, {size}, 3): RGB, resized as at test time, one image at a time",
        outputs=module.outputs,
        weights_sha256=state_dict_sha256(model.state_dict()),
        calibrators=_calibrators_of(model),
        versions=versions_of("distilled-uncertainty", "torch", "torchvision", "detectron2", "detectron2_cdo"),
    )
    axes = {name: {0: "detections"} for name in module.outputs}
    return Graph(module, example, {IMAGE: {1: "height", 2: "width"} if any_size else {}, **axes}, description)


def examples(resize: T.Augmentation, image: Path | None) -> tuple[Tensor, Tensor]:
    """Two images of different sizes to trace and to try a graph on, uint8 (1, H, W, 3).

    Args:
        resize: as at test time.
        image: a file; None for noise.
    """
    shown = T.AugInput(noise(480, 640)[0].numpy() if image is None else read_image(str(image), format="RGB"))
    resize(shown)
    height, width = shown.image.shape[:2]
    cut = shown.image[: -max(1, height // 5), : -max(1, width // 7)]
    return tuple(torch.as_tensor(np.ascontiguousarray(part)).unsqueeze(0) for part in (shown.image, cut))


def _calibrators_of(model: nn.Module) -> dict[str, str]:
    settings = getattr(model.roi_heads, "test_settings", None)
    calibrator: ScoreCalibrator | ProbabilityCalibrator | None = None if settings is None else settings.calibrator
    return {} if calibrator is None else {"calibrator": calibrator.to_json()}
