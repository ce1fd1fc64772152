"""The logits of a prediction, whatever the number of a segmentor's outputs.

Shapes: C classes, H x W pixels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from uncertainty_core.streaming.dtypes import at_least_float32


def class_logits(sample: Mapping[str, Any]) -> Tensor:
    """Logits (C, H, W); two where a segmentor has one output, of which mmseg's `seg_logits` are the sigmoid."""
    logits = sample["seg_logits"]["data"]
    if len(logits) > 1:
        return logits
    probability = at_least_float32(logits)
    return torch.cat((1 - probability, probability)).log_()
