"""Segmentors as one graph, from the bytes of an image to classes, probabilities and uncertainties of its pixels.

Shapes: B images, C classes, H x W pixels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmseg.models import BaseSegmentor
from torch import Tensor, nn

from uncertainty_core import state_dict_sha256
from uncertainty_core.errors import UserError
from uncertainty_core.export import IMAGE, Description, ExportError, Graph, noise, versions_of
from uncertainty_core.io.files import open_atomically, write_text

from ..models.calibration import KEYS, calibrated_prediction, calibrated_uncertainty, every_class
from ..models.consensus import FIELDS, Prediction, both_classes, probabilities
from ..models.segmentor import UncertaintyMixin
from ..targets.generate import inference_pipeline
from .any_size import with_any_size_layers

_PACKAGES = ("distilled-uncertainty", "torch", "mmsegmentation", "onedl-mmsegmentation", "mmcv", "onedl-mmcv")
_MEANINGS = {
    "classes": "the predicted class of each pixel (B, H, W), int64",
    "probabilities": "of the classes (B, C, H, W)",
    "uncertainty": "deviation of the probability of the predicted class over the teacher's members (B, H, W)",
    "entropy": "of the mean probabilities of the teacher's members, divided by log C (B, H, W)",
    "mutual_information": "of the teacher's members, divided by log C (B, H, W)",
    "error": "the probability that the predicted class is wrong, as the teacher has it (B, H, W)",
    "own_error": "the probability that the predicted class is wrong, as the student learnt it of itself (B, H, W)",
    "class_uncertainty": "deviation of the probability of each class over the teacher's members (B, C, H, W)",
}
_CALIBRATED = "the probability that the predicted class is wrong (B, H, W)"


class SegmentorGraph(nn.Module):
    """From images, bytes (B, H, W, 3) in RGB, to a tuple of what `outputs` names."""

    def __init__(self, model: BaseSegmentor) -> None:
        super().__init__()
        self.model = with_any_size_layers(model)
        self._is_student = isinstance(model, UncertaintyMixin)
        calibrators = getattr(model, "calibrators", ())
        if len(calibrators) > 1:
            raise UserError(
                "model.calibrator names one of each half of the images, and a graph holds one for all: fit it to all"
            )
        self._calibrator = calibrators[0] if calibrators else None
        self._uncertainty_calibrator = getattr(model, "uncertainty_calibrator", None)

    @property
    def outputs(self) -> dict[str, str]:
        """Name and meaning of each output, in order."""
        names = ["classes", "probabilities"]
        if self._is_student:
            head = self.model.uncertainty_head
            names += [FIELDS[name] for name in head.outputs]
            names += ["class_uncertainty"] * (head.num_outputs > 1)
        changed = {} if self._uncertainty_calibrator is None else {"uncertainty": _CALIBRATED}
        return {name: (_MEANINGS | changed)[name] for name in names}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs, each of the image's own size."""
        inputs = self._prepared(image)
        size = tuple(inputs.shape[2:])
        metainfo = [{"ori_shape": size, "img_shape": size, "pad_shape": size}]
        if self._is_student:
            seg_logits, maps = self.model.inferred(inputs, metainfo)
        else:
            seg_logits, maps = self.model.inference(inputs, metainfo), None
        height, width = image.shape[1:3]
        seg_logits = seg_logits[..., :height, :width]
        plain = self._predicted(seg_logits)
        found = self._calibrated(plain)
        both = both_classes(found.seg_logits) if seg_logits.shape[1] == 1 else probabilities(found.seg_logits)
        outputs = {"classes": found.classes.squeeze(1).long(), "probabilities": both}
        if maps is not None:
            outputs |= self._uncertainties(maps[..., :height, :width].clamp(0, 1), plain.classes)
        return tuple(outputs[name] for name in self.outputs)

    def _prepared(self, image: Tensor) -> Tensor:
        """Inputs of the network (B, 3, H', W'), as mmsegmentation's preprocessor makes them at test time."""
        preprocessor = self.model.data_preprocessor
        inputs = image.permute(0, 3, 1, 2).contiguous()
        # its name in the original mmsegmentation, and in its continuation
        names = ("channel_conversion", "_channel_conversion")
        if not any(getattr(preprocessor, name, False) for name in names):  # the network takes BGR, as files are read
            inputs = inputs.flip(1)
        inputs = inputs.float()
        if preprocessor._enable_normalize:
            inputs = (inputs - preprocessor.mean) / preprocessor.std
        padding = preprocessor.test_cfg or {}
        if padding.get("size") is not None:
            raise UserError("data_preprocessor.test_cfg.size pads images to one size: set size_divisor in its place")
        if (divisor := padding.get("size_divisor")) is not None:
            height, width = inputs.shape[2:]
            missing = (0, -width % divisor, 0, -height % divisor)
            inputs = nn.functional.pad(inputs, missing, value=preprocessor.pad_val)
        return inputs

    @property
    def _threshold(self) -> float | None:
        head = self.model.decode_head
        return (head[-1] if isinstance(head, nn.ModuleList) else head).threshold

    def _predicted(self, seg_logits: Tensor) -> Prediction:
        if seg_logits.shape[1] == 1:
            probability = seg_logits.sigmoid()
            return Prediction(probability, probability > self._threshold)
        return Prediction(seg_logits, seg_logits.argmax(1, keepdim=True))

    def _calibrated(self, plain: Prediction) -> Prediction:
        if self._calibrator is None:
            return plain
        return calibrated_prediction(plain.seg_logits, self._calibrator, self._threshold)

    def _uncertainties(self, maps: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """By name, of `maps` (B, U, H, W) and the `classes` (B, 1, H, W) before any calibrator."""
        named = self.model.uncertainty_head.by_name(maps)
        every = named["std"]
        if every.shape[1] > 1:
            named["std"] = every.gather(1, classes)
        calibrator = self._uncertainty_calibrator
        if calibrator is not None:
            named["std"] = calibrated_uncertainty(named["std"], classes, calibrator)
            every = calibrated_uncertainty(every, every_class(every), calibrator)
        outputs = {FIELDS[name]: values.squeeze(1) for name, values in named.items()}
        return outputs | {"class_uncertainty": every}


def segmentor_graph(
    model: BaseSegmentor, classes: Sequence[str], size: tuple[int, int], any_size: bool = True
) -> Graph:
    """The graph of a student, or of any segmentor of mmsegmentation with its calibrator.

    Args:
        model: in eval mode.
        classes: names.
        size: H, W of the image that it is traced on.
        any_size: whether the file is to take images of other sizes, too.
    """
    if any_size and model.test_cfg.get("mode", "whole") == "slide":
        raise ExportError("model.test_cfg.mode is 'slide', and how many windows an image has depends on its size")
    module = SegmentorGraph(model).eval()
    description = Description(
        task="segmentation",
        classes=tuple(classes),
        input=f"uint8 (B, {'H, W' if any_size else '{}, {}'.format(*size)}, 3): RGB, resized as at test time",
        outputs=module.outputs,
        weights_sha256=state_dict_sha256(model.state_dict()),
        calibrators=calibrators_of(model),
        versions=versions_of(*_PACKAGES),
    )

    def axes(height: int) -> dict[int, str]:
        return {0: "batch"} | ({height: "height", height + 1: "width"} if any_size else {})

    of_outputs = {name: axes(2 if "(B, C, H, W)" in meaning else 1) for name, meaning in module.outputs.items()}
    return Graph(module, noise(*size), {IMAGE: axes(1), **of_outputs}, description)


def calibrators_of(model: nn.Module) -> dict[str, str]:
    """What the files of a segmentor's calibrators hold, by their keys in its config."""
    found = {key: getattr(model, key, None) for key in KEYS}
    found["calibrator"] = next(iter(getattr(model, "calibrators", ())), None)
    return {key: calibrator.to_json() for key, calibrator in found.items() if calibrator is not None}


_OURS = ("teacher", "uncertainty_head", "uncertainty_calibrator", "loss_distillation", "calibrator")  # keys of models


def export_plain(cfg: Config, model: BaseSegmentor, classes: Sequence[str], folder: Path) -> Iterator[Path]:
    """Write model.pth and config.py, which mmsegmentation's own inferencer takes; calibrators go into files beside.

    Args:
        cfg: of the student.
        model: with its weights.
        classes: names.
        folder: for the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: values for name, values in model.state_dict().items() if not name.startswith("uncertainty_head.")}
    with open_atomically(folder / "model.pth") as file:
        torch.save({"state_dict": weights, "meta": {"dataset_meta": {"classes": tuple(classes)}}}, file)
    yield folder / "model.pth"
    plain = {key: value for key, value in cfg.model.to_dict().items() if key not in _OURS}
    plain["type"] = plain["type"].removeprefix("DUDES").removeprefix("Calibrated")
    pipeline = inference_pipeline(cfg)
    dataset = {"type": "BaseSegDataset", "metainfo": {"classes": tuple(classes)}, "pipeline": pipeline}
    values = {
        "default_scope": "mmseg",
        "model": plain,
        "test_pipeline": pipeline,
        "test_dataloader": {"batch_size": 1, "dataset": dataset},
    }
    Config(values).dump(str(folder / "config.py"))
    yield folder / "config.py"
    for key, content in calibrators_of(model).items():
        write_text(folder / f"{key}.json", content)
        yield folder / f"{key}.json"
