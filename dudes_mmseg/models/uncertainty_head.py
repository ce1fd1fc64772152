"""The second output layer of a decode head: how sure is it of the class that the first one picks?

Shapes: B images, F features of a pixel, U outputs, C outputs of the decode head, h x w pixels of the feature maps,
H x W of the image.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from mmengine.model import BaseModule, kaiming_init, normal_init
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from uncertainty_core.checks import check_positive_int
from uncertainty_core.errors import UserError
from uncertainty_core.streaming.dtypes import at_least_float32

from .consensus import FIELDS, FROM_LABELS, checked_outputs


class Pass(NamedTuple):
    """uncertainty: logits of the branch (B, U, h, w); segmentation: of the decode head (B, C, h, w)."""

    uncertainty: Tensor
    segmentation: Tensor


@contextmanager
def passes_of(conv_seg: nn.Module, branch: nn.Module) -> Iterator[list[Pass]]:
    """Gives the list of what both make of the input of `conv_seg`, for each call inside the context.

    The input itself is neither computed again nor kept, and `conv_seg` notices nothing.
    """
    passes: list[Pass] = []
    handle = conv_seg.register_forward_hook(lambda _, inputs, logits: passes.append(Pass(branch(inputs[0]), logits)))
    try:
        yield passes
    finally:
        handle.remove()


_LOSSES = {name: {"type": "SoftBCELoss" if name in FROM_LABELS else "RMSLELoss"} for name in FIELDS}


@MODELS.register_module()
class UncertaintyHead(BaseModule):
    """One 1x1 convolution and a sigmoid, on the features from which the decode head's last layer makes its logits.

    Args:
        in_channels: F.
        num_outputs: of "std"; 1 for the predicted class, or one for each class (Holder & Shafique).
        outputs: the uncertainties that are learnt, see `FIELDS`; "std" first.
        hidden: features of a 1x1 convolution and ReLU before the last convolution, for all outputs; None for none.
        detached: outputs whose losses train this head alone: their gradients end at its input.
        loss: config of the loss between the sigmoid's output and the target, the same for all outputs; or configs by
            the names of outputs. Else `RMSLELoss`, and for outputs `FROM_LABELS` `SoftBCELoss`.
        align_corners: how maps are resized, as the decode head does.
    """

    def __init__(
        self,
        in_channels: int,
        num_outputs: int = 1,
        outputs: Sequence[str] = ("std",),
        hidden: int | None = None,
        detached: Sequence[str] = ("own_error",),
        loss: dict | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.num_outputs, self.align_corners = num_outputs, align_corners
        self.outputs = checked_outputs(outputs)
        if unknown := set(detached) - set(FIELDS):
            raise UserError(f"uncertainty_head.detached must hold names of outputs, got {', '.join(sorted(unknown))}")
        self.hidden = None
        if hidden is not None:
            check_positive_int("uncertainty_head.hidden", hidden)
            self.hidden = nn.Conv2d(in_channels, hidden, kernel_size=1)
            kaiming_init(self.hidden)
        self.conv = nn.Conv2d(hidden or in_channels, sum(self._sizes), kernel_size=1)
        normal_init(self.conv, std=0.01)  # as mmseg does its last layer, and whatever the segmentor's init_cfg says
        self._detached = [name in detached for name, k in zip(self.outputs, self._sizes, strict=True) for _ in range(k)]
        same = loss if loss and "type" in loss else None
        configs = {name: same or (loss or {}).get(name) or _LOSSES[name] for name in self.outputs}
        self.losses = nn.ModuleDict({name: MODELS.build(config) for name, config in configs.items()})

    def forward(self, features: Tensor) -> Tensor:
        """Uncertainty logits (B, U, h, w) of `features` (B, F, h, w)."""
        logits = self._read_out(features)
        if any(self._detached) and torch.is_grad_enabled():
            detached = torch.tensor(self._detached, device=logits.device)[:, None, None]
            logits = torch.where(detached, self._read_out(features.detach()), logits)
        return logits

    def _read_out(self, features: Tensor) -> Tensor:
        return self.conv(features if self.hidden is None else self.hidden(features).relu())

    @property
    def _sizes(self) -> list[int]:
        """How many channels each output has."""
        return [self.num_outputs, *(1 for _ in self.outputs[1:])]

    def uncertainty(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Uncertainty (B, U, H, W) in [0, 1], in float32 also under mixed precision, of `logits` (B, U, h, w).

        Args:
            logits: what `forward` gave.
            size: H, W.
        """
        logits = resize(at_least_float32(logits), tuple(size), mode="bilinear", align_corners=self.align_corners)
        return logits.sigmoid()

    def by_name(self, uncertainty: Tensor, dim: int = 1) -> dict[str, Tensor]:
        """Each output's maps of `uncertainty` (..., U, ...), whose dimension `dim` has them all."""
        return dict(zip(self.outputs, uncertainty.split(self._sizes, dim), strict=True))

    def loss(self, logits: Tensor, targets: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each output, named after it: "uncertainty.loss_rmsle", "entropy.loss_rmsle", ...

        Args:
            logits: what `forward` gave (B, U, h, w).
            targets: of each output (B, 1 or C, H, W).
            masks: where they count (B, H, W), bool.
        """
        size = targets["std"].shape[2:]
        losses = {}
        for name, uncertainty in self.by_name(self.uncertainty(logits, size)).items():
            loss, target = self.losses[name], targets[name]
            values = loss(uncertainty, target, masks[name].unsqueeze(1).expand_as(target))
            losses[f"{FIELDS[name]}.{loss.loss_name}"] = values
        return losses
