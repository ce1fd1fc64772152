"""An ensemble of decode heads on one backbone, trained together: only the heads are repeated, and only they differ.

Shapes: B images, C outputs of the decode heads (classes, or 1 for the second of two), H x W pixels of the input.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import ModuleList
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from uncertainty_core.errors import UserError

from ..models.consensus import prediction, probabilities
from ..models.teacher import Metainfo, TeacherSegmentor, features_from


@MODELS.register_module()
class HeadEnsembleEncoderDecoder(EncoderDecoder):
    """`EncoderDecoder` with several decode heads of one kind, from different random weights; it predicts their mean.

    The losses of all heads are added up, so the backbone's gradient is that of so many: give it a lower learning rate.

    Args:
        decode_head: config of each head.
        num_heads: how many.
        args, kwargs: as `EncoderDecoder`.
    """

    def __init__(self, *args: Any, num_heads: int, **kwargs: Any) -> None:
        if num_heads < 2:
            raise UserError(f"num_heads must be at least 2 for heads to differ, got {num_heads}")
        self.num_heads = num_heads
        super().__init__(*args, **kwargs)
        self._asked: list[nn.Module] = list(self.decode_head)

    def _init_decode_head(self, decode_head: dict) -> None:
        self.decode_head = ModuleList(MODELS.build(copy.deepcopy(decode_head)) for _ in range(self.num_heads))
        head = self.decode_head[0]
        self.align_corners, self.num_classes, self.out_channels = (
            head.align_corners,
            head.num_classes,
            head.out_channels,
        )
        self.decode_head.threshold = head.threshold  # where mmseg looks for it

    def _decode_head_forward_train(self, inputs: list[Tensor], data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        losses = {}
        for number, head in enumerate(self.decode_head):
            losses |= add_prefix(head.loss(inputs, data_samples, self.train_cfg), f"decode_{number}")
        return losses

    @contextmanager
    def one_head(self, number: int) -> Iterator[None]:
        """The head of this number predicts alone inside the context."""
        asked, self._asked = self._asked, [self.decode_head[number]]
        try:
            yield
        finally:
            self._asked = asked

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[Metainfo]) -> Tensor:
        """Segmentation logits (B, C, H, W) of one head, or of the mean of all heads' probabilities."""
        features = self.extract_feat(inputs)
        logits = [head.predict(features, batch_img_metas, self.test_cfg) for head in self._asked]
        if len(logits) == 1:
            return logits[0]
        mean = sum(map(probabilities, logits)) / len(logits)
        if self.out_channels == 1:  # an infinite logit would become NaN where it is resized
            return mean.logit(torch.finfo(mean.dtype).eps)
        return prediction(mean, None).seg_logits

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[Tensor]:
        features = self.extract_feat(inputs)
        return [head(features) for head in self.decode_head]


@MODELS.register_module()
class HeadEnsembleSegmentor(TeacherSegmentor):
    """The heads of a `HeadEnsembleEncoderDecoder`, one after the other, on features that are computed once.

    Args:
        segmentor: its config.
        checkpoint: its weights.
        kwargs: ddof, class_wise, outputs, data_preprocessor and calibrators, as `TeacherSegmentor`.
    """

    def __init__(self, segmentor: dict, checkpoint: str, **kwargs: Any) -> None:
        super().__init__(segmentor, [checkpoint], **kwargs)
        if not isinstance(self.members[0], HeadEnsembleEncoderDecoder):
            kind = type(self.members[0]).__name__
            raise UserError(f"segmentor is a {kind}, which has a single head: give a HeadEnsembleEncoderDecoder")

    @property
    def num_samples(self) -> int:
        """How many heads there are."""
        return self.members[0].num_heads

    def passes(self, inputs: Tensor, metainfo: list[Metainfo]) -> Iterator[Tensor]:
        """See `TeacherSegmentor`."""
        (member,) = self.members
        windows: list[Any] = []
        for number in range(member.num_heads):
            with features_from(windows, member), member.one_head(number):
                logits = member.inference(inputs, copy.deepcopy(metainfo))
            yield logits
