"""Monte-Carlo sampling of a network, as fast as its structure allows.

What runs before the first dropout is the same in every pass and runs once; the rest is sampled in sub-batches small
enough for the processor's cache.

Shapes: N images, C classes, M draws.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from uncertainty_core import mc_mean_std, split_at_dropout
from uncertainty_core.streaming.dtypes import at_least_float32

from .models.staged import Staged


def enumerate_rows(values: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Pieces (<= size, ...) of `values` (N, ...), each with the number of its first row."""
    return ((k * size, piece) for k, piece in enumerate(values.split(size)))


@torch.no_grad()
def mc_outputs(
    model: nn.Module,
    images: Tensor,
    num_samples: int,
    transform: Callable[[Tensor], Tensor] = lambda logits: logits,
    seed: int | None = None,
    keys: Sequence[int | str] | None = None,
    sub_batch: int = 16,
    precision: str = "float32",
    channels_last: bool = False,
) -> Tensor:
    """Mean over M stochastic passes of the transformed logits (N, C).

    Args:
        model: in eval mode; one that is no chain of stages runs whole in every pass.
        images: (N, channels, height, width).
        num_samples: M.
        transform: applied to the logits (n, C) of each pass, `lambda z: z.softmax(1)` for mean probabilities.
        seed, keys: make the draws a function of (seed, key of the image, number of the draw) alone.
        sub_batch: images that are sampled together; does not change the result of keyed draws.
        precision: "float32", or "bfloat16", in which convolutions and matrix products then run: faster where the
            processor has it, and right to two or three digits. Draws are averaged in float32 in any case, and keyed
            ones have the same masks.
        channels_last: keep the channels of a pixel together, which most processors convolve faster; the sums of a
            convolution are taken in another order, so that the last bits of the result differ.
    """
    if model.training:
        raise ValueError("model must be in eval mode: in training mode batch statistics would change, too")
    stages = model.stages if isinstance(model, Staged) else nn.Sequential(model).eval()
    if channels_last:  # a copy: the caller's other results must not change with the layout of the weights
        stages = deepcopy(stages).to(memory_format=torch.channels_last)
    shared, sampled = split_at_dropout(stages)
    keys = range(len(images)) if keys is None and seed is not None else keys
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        features = shared(images)
        means = [
            mc_mean_std(
                sampled,
                part,
                num_samples=num_samples,
                transform=lambda logits: transform(at_least_float32(logits)),
                seed=seed,
                keys=None if keys is None else keys[start : start + sub_batch],
            )[0]
            for start, part in enumerate_rows(features, sub_batch)
        ]
    return torch.cat(means)
