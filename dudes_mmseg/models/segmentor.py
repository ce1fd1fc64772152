"""Students: segmentors of mmseg that predict in the same pass how sure they are of each pixel.

Shapes: B images, C classes, U outputs of the uncertainty head, H x W pixels of the network's input.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from mmengine.logging import print_log
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from uncertainty_core import Frozen
from uncertainty_core.errors import UserError
from uncertainty_core.streaming.dtypes import at_least_float32

from .calibration import CalibratedMixin, Source, calibrate_uncertainty, read_uncertainty_calibrator
from .consensus import FROM_LABELS, SUITED_HEADS, check_gives_logits, probabilities, set_uncertainty
from .maps import to_original
from .supervision import (
    Targets,
    error_of,
    has_class,
    labelled_alone,
    labels_of,
    real_pixels,
    stored_maps,
    stored_probabilities,
)
from .uncertainty_head import Pass, passes_of


def _say_that_branch_is_fresh(segmentor: nn.Module, incompatible_keys: Any) -> None:
    """Weights of a baseline fit as they are: what they lack is the branch, and that is no misfit."""
    missing = incompatible_keys.missing_keys
    known = [key for key in missing if ".uncertainty_head." not in f".{key}"]
    if len(known) < len(missing):
        missing[:] = known
        text = "The loaded weights hold no uncertainty_head: it starts fresh, from random weights."
        print_log(text, "current", logging.WARNING)


class UncertaintyMixin:
    """Adds an uncertainty head to a segmentor whose (last) decode head ends in `cls_seg`.

    What the framework makes of the same weights stays as it is, bit by bit: logits, losses, and the keys of weights.
    """

    def __init__(
        self,
        *args: Any,
        uncertainty_head: dict | None = None,
        teacher: dict | None = None,
        uncertainty_calibrator: Source | None = None,
        loss_distillation: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            args, kwargs: as the framework's segmentor.
            uncertainty_head: config of the branch, see `UncertaintyHead`; what it takes from the decode head is
                filled in.
            teacher: config of a teacher that makes the targets during training, from the very inputs of the student;
                None where the pipeline loads them from a store.
            uncertainty_calibrator: from the uncertainty to the probability of an error, as `CalibratedMixin` has its.
            loss_distillation: config of a loss between the student's segmentation logits and the teacher's mean
                probabilities, such as `MeanProbabilityLoss`; None for the labels alone, as in the paper.
        """
        check_gives_logits(kwargs)
        super().__init__(*args, **kwargs)
        head = self._last_decode_head
        if not isinstance(getattr(head, "conv_seg", None), nn.Conv2d):
            raise UserError(
                f"{type(head).__name__} has no conv_seg whose features an uncertainty head could share: {SUITED_HEADS}"
            )
        branch = {"type": "UncertaintyHead", "in_channels": head.conv_seg.in_channels}
        branch |= {"align_corners": self.align_corners, **(uncertainty_head or {})}
        self.uncertainty_head = MODELS.build(branch)
        if self.uncertainty_head.num_outputs not in (1, self.out_channels):
            raise UserError(
                f"uncertainty_head.num_outputs must be 1, or {self.out_channels} as the decode head's for a map of "
                f"each class, got {self.uncertainty_head.num_outputs}"
            )
        self.register_load_state_dict_post_hook(_say_that_branch_is_fresh)
        self.teacher = None if teacher is None else Frozen(MODELS.build(teacher))
        if self.teacher is not None and self.teacher.module.out_channels != self.out_channels:
            raise UserError(
                f"the teacher has {self.teacher.module.out_channels} outputs for {self.out_channels} of the student: "
                "both must be trained on the same classes"
            )
        self.uncertainty_calibrator = read_uncertainty_calibrator(uncertainty_calibrator, self.out_channels)
        self.loss_distillation = None if loss_distillation is None else MODELS.build(loss_distillation)
        self._windows: list[Tensor] | None = None  # of the prediction in progress

    @property
    def _last_decode_head(self) -> nn.Module:
        return self.decode_head[-1] if isinstance(self.decode_head, nn.ModuleList) else self.decode_head

    @property
    def _heads(self) -> list[nn.Module]:
        """All that learn from labels."""
        found = [self.decode_head, *([self.auxiliary_head] if self.with_auxiliary_head else [])]
        return [head for part in found for head in (part if isinstance(part, nn.ModuleList) else [part])]

    @contextmanager
    def _one_pass(self) -> Iterator[list[Pass]]:
        """The logits of the one forward pass inside the context, as a list of one at its end."""
        head = self._last_decode_head
        with passes_of(head.conv_seg, self.uncertainty_head) as passes:
            yield passes
        if len(passes) != 1:
            raise UserError(
                f"{type(head).__name__} called its conv_seg {len(passes)} times in one pass, the uncertainty head "
                f"needs it to be once: {SUITED_HEADS}"
            )

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """The framework's losses of `inputs` (B, 3, H, W), and those of the branch and of the distillation.

        Their names begin with "uncertainty." or the name of another output, and with "distillation.". Images without
        labels have no part in the framework's.
        """
        targets = self._targets(inputs, data_samples)
        with self._one_pass() as passes, labelled_alone(self._heads, data_samples):
            losses = super().loss(inputs, data_samples)
        branch, seg_logits = passes[0]
        learns_own_error = "own_error" in self.uncertainty_head.outputs
        if learns_own_error or self.loss_distillation is not None:
            seg_logits = resize(at_least_float32(seg_logits), inputs.shape[2:], None, "bilinear", self.align_corners)
        if learns_own_error:
            own_error = error_of(probabilities(seg_logits.detach()), labels_of(data_samples))
            targets = targets._replace(maps=targets.maps | {"own_error": own_error})
        losses |= self.uncertainty_head.loss(branch, targets.maps, targets.masks)
        if self.loss_distillation is not None:
            loss = self.loss_distillation(seg_logits, targets.probabilities, targets.real)
            losses |= add_prefix({self.loss_distillation.loss_name: loss}, "distillation")
        return losses

    def _targets(self, inputs: Tensor, data_samples: list[SegDataSample]) -> Targets:
        """All but "own_error", which is known when the student has predicted."""
        size, head = inputs.shape[2:], self.uncertainty_head
        learns_error = "error" in head.outputs
        needs_probabilities = learns_error or self.loss_distillation is not None
        mean = None
        if self.teacher is None:
            maps = stored_maps(data_samples, head.outputs, head.num_outputs, size)
            real = ((maps["std"] >= 0) & (maps["std"] <= 1)).all(1)
            if needs_probabilities:
                mean, known = stored_probabilities(data_samples, self.out_channels, size)
                real &= known  # OpenCV rotates integers and floats with other roundings
        else:
            outputs = [name for name in head.outputs if name not in FROM_LABELS]
            judged, maps = self.teacher.module.judge(inputs, data_samples, head.num_outputs > 1, outputs)
            real = real_pixels(data_samples, size).to(inputs.device)
            mean = judged.probabilities if needs_probabilities else None
        if learns_error:
            maps = maps | {"error": error_of(mean, labels_of(data_samples))}
        return Targets(maps, real, real & has_class(data_samples, self._last_decode_head.ignore_index), mean)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Segmentation logits (B, C, H, W) of whole images or of a window of them."""
        if self._windows is None:
            return super().encode_decode(inputs, batch_img_metas)
        with self._one_pass() as passes:
            seg_logits = super().encode_decode(inputs, batch_img_metas)
        self._windows.append(self.uncertainty_head.uncertainty(passes[0].uncertainty, seg_logits.shape[2:]))
        return seg_logits

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """The framework's predictions, each with `pred_uncertainty` (1, h, w) in [0, 1] of the image's own size.

        A head with an output for each class gives `pred_class_uncertainty` (C, h, w), too, and one with other outputs
        `pred_entropy`, `pred_mutual_information`, `pred_error` and `pred_own_error` (1, h, w).
        """
        with self._recording() as windows:
            samples = super().predict(inputs, data_samples)
            uncertainty = self._joined(windows, inputs)
        for number, sample in enumerate(samples):
            maps = uncertainty[number : number + 1]
            if data_samples is not None:
                maps = to_original(maps, sample.metainfo, self.align_corners)
            maps = maps[0].clamp(0, 1)  # interpolation may miss 1 by a rounding error
            set_uncertainty(sample, self.uncertainty_head.by_name(maps, dim=0))
            calibrate_uncertainty(sample, self.uncertainty_calibrator)
        return samples

    def inferred(self, inputs: Tensor, batch_img_metas: list[dict]) -> tuple[Tensor, Tensor]:
        """Segmentation logits (B, C, H, W) and uncertainty (B, U, H, W) of `inputs` (B, 3, H, W), whole or slided."""
        with self._recording() as windows:
            seg_logits = self.inference(inputs, batch_img_metas)
            return seg_logits, self._joined(windows, inputs)

    @contextmanager
    def _recording(self) -> Iterator[list[Tensor]]:
        """The uncertainty of each window (or of the whole image) that is predicted inside the context."""
        self._windows = []
        try:
            yield self._windows
        finally:
            self._windows = None

    def _joined(self, windows: list[Tensor], inputs: Tensor) -> Tensor:
        """Uncertainty (B, U, H, W): the mean over windows."""
        if self.test_cfg.get("mode", "whole") != "slide":
            return windows[0]
        # the framework's own windows, once more, with what is known already for the network
        known = iter(windows)
        player = SimpleNamespace(
            test_cfg=self.test_cfg, out_channels=windows[0].shape[1], encode_decode=lambda *_: next(known)
        )
        return EncoderDecoder.slide_inference(player, inputs, [{}])


@MODELS.register_module()
class DUDESEncoderDecoder(CalibratedMixin, UncertaintyMixin, EncoderDecoder):
    """`EncoderDecoder` with an uncertainty head."""


@MODELS.register_module()
class DUDESCascadeEncoderDecoder(CalibratedMixin, UncertaintyMixin, CascadeEncoderDecoder):
    """`CascadeEncoderDecoder` with an uncertainty head on its last stage."""
