"""How far off each box is likely to be, in pixels.

Shapes: R boxes, K foreground classes, N detections.
"""

from collections.abc import Sequence

from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

# Part of the names of weights that neither plain detectors nor teachers have.
BOX_STD = ".box_std."


def without_box_std(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the `weights` of a detector that plain Detectron2 knows."""
    return {name: value for name, value in weights.items() if BOX_STD not in f".{name}"}


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    """Those four of `values` (N, 4K) or (N, 4) that are of `classes` (N,): (N, 4)."""
    if values.shape[1] == 4:
        return values
    return values.unflatten(1, (-1, 4)).gather(1, classes[:, None, None].expand(-1, 1, 4)).squeeze(1)


def corner_std(delta_std: Tensor, boxes: Tensor, proposals: Tensor, transform: Box2BoxTransform) -> Tensor:
    """Deviations of the corners of `boxes` in pixels, to first order, the four deltas being independent: (R, 4K).

    x1 is the centre less half of the width. The centre moves with its delta by the width of the proposal, and the
    logarithm of the width with its own by 1, each over the weight of the delta.

    Args:
        delta_std: of (dx, dy, dw, dh) of each class (R, 4K).
        boxes: that the deltas lead to (R, 4K).
        proposals: that they start from (R, 4).
        transform: gives deltas their weights.
    """
    std, boxes = (values.unflatten(1, (-1, 4)) for values in (delta_std, boxes))
    weights = std.new_tensor(transform.weights)
    of_centre = (proposals[:, None, 2:] - proposals[:, None, :2]) * std[..., :2] / weights[:2]
    of_half = (boxes[..., 2:] - boxes[..., :2]) / 2 * std[..., 2:] / weights[2:]
    # not torch.hypot, which ONNX lacks
    return (of_centre.square() + of_half.square()).sqrt().repeat(1, 1, 2).flatten(1)


def scaled_std(std: Tensor, resized: Sequence[int], original: Sequence[int]) -> Tensor:
    """Deviations of boxes (N, 4) in a resized image, in pixels of the original one; sizes are height and width."""
    (of_height, of_width), (height, width) = resized, original
    return std * std.new_tensor([width / of_width, height / of_height]).repeat(2)
