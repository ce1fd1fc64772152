"""Class probabilities of a prediction, from what mmseg keeps of it.

Shapes: C classes, H x W pixels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from uncertainty_core.scores import at_least_float32


def class_probabilities(sample: Mapping[str, Any]) -> Tensor:
    """Probabilities (C, H, W); two where a segmentor has one output, whose `seg_logits` are a sigmoid already."""
    logits = at_least_float32(sample["seg_logits"]["data"])
    return logits.softmax(0) if len(logits) > 1 else torch.cat((1 - logits, logits))
