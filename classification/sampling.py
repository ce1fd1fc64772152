"""The mean of many predictions: Monte-Carlo passes of a network, as fast as its structure allows, and ensembles.

Of a Monte-Carlo pass, what runs before the first dropout is the same in every one and runs once; the rest is sampled in
sub-batches small enough for the processor's cache.

Shapes: N images, C classes, M draws.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn

from uncertainty_core import derive_seed, dropout_modules, mc_dropout, mc_mean_std, split_at_dropout
from uncertainty_core.streaming.dtypes import at_least_float32

from .models.staged import Staged


def enumerate_rows(values: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Pieces (<= size, ...) of `values` (N, ...), each with the number of its first row."""
    return ((k * size, piece) for k, piece in enumerate(values.split(size)))


class Ensemble(nn.Module):
    """Several networks as one: its logits (N, C) are the logarithm of the mean of their probabilities."""

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def mean(self, images: Tensor, transform: Callable[[Tensor], Tensor] = lambda logits: logits) -> Tensor:
        """Mean over members of the transformed logits (N, C)."""
        return sum(transform(member(images)) for member in self.members) / len(self.members)

    def forward(self, images: Tensor) -> Tensor:
        """Logits whose softmax is the mean of the members' probabilities."""
        return log_mean(self.mean(images, double_softmax)).float()


def double_softmax(logits: Tensor) -> Tensor:
    """Probabilities of `logits` (N, C) in float64, where no class is so improbable that it becomes 0."""
    return logits.double().softmax(1)


def log_mean(probabilities: Tensor) -> Tensor:
    """Logarithm of mean `probabilities` (N, C), finite."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def diversified(teacher: nn.Module, images: Tensor, keys: Sequence[int | str], seed: int, step: float) -> Tensor:
    """`images` (N, ...) moved to where teachers disagree: ConfODS of Nam et al., "Diversity matters when learning from
    ensembles", NeurIPS 2021.

    Each image x has weights w (C) of its own, uniform in [-1, 1], and moves along the gradient of sum_c w_c p_c(x),
    where p are the probabilities of one member of an `Ensemble`, or of one stochastic pass. The root mean square of the
    change is `step` max_c p_c: less where the teacher is unsure. All draws are functions of (seed, key of the image).
    """
    seeds = [derive_seed(seed, "ods", key) for key in keys]
    images = images.detach().requires_grad_()
    passes = mc_dropout(teacher, seeds=seeds) if dropout_modules(teacher) else nullcontext()
    if isinstance(teacher, Ensemble):
        teacher, passes = teacher.members[derive_seed(seed, "member") % len(teacher.members)], nullcontext()
    with torch.enable_grad(), passes:
        probabilities = teacher(images).softmax(1)
        weights = torch.stack([_uniform(probabilities.shape[1], row) for row in seeds]).to(probabilities)
        (gradient,) = torch.autograd.grad((weights * probabilities).sum(), images)
    gradient, confidence = gradient.flatten(1), probabilities.detach().amax(1, keepdim=True)
    root_mean_square = gradient.square().mean(1, keepdim=True).sqrt().clamp(min=torch.finfo(gradient.dtype).tiny)
    change = step * confidence * gradient / root_mean_square
    return images.detach() + change.view_as(images)


def _uniform(size: int, seed: int) -> Tensor:
    return 2 * torch.rand(size, generator=torch.Generator().manual_seed(seed)) - 1


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
