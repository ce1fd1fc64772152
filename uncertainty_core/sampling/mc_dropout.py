"""Monte-Carlo dropout: sample a trained network by leaving its dropout on.

Shapes: N samples (rows of what reaches a dropout module), M draws.
"""

import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..checks import check_positive_int
from ..streaming.moments import RunningMoments

_WHOLE_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_KEYED = (nn.Dropout, *_WHOLE_CHANNELS)
_DROPOUT = (*_KEYED, nn.AlphaDropout, nn.FeatureAlphaDropout)


def dropout_modules(model: nn.Module) -> list[nn.Module]:
    """All dropout modules of `model`, itself included."""
    return [module for module in model.modules() if isinstance(module, _DROPOUT)]


def split_at_dropout(stages: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """The stages before the first one that holds a dropout module, and the rest; both share the original's weights.

    The former give the same in every pass, and need to run only once. Both come in the mode of `stages`.
    """
    first = next((k for k, stage in enumerate(stages) if dropout_modules(stage)), len(stages))
    parts = stages[:first], stages[first:]
    for part in parts:
        part.training = stages.training  # slicing makes new containers, which start in training mode
    return parts


def derive_seed(*key: int | str) -> int:
    """A seed in [0, 2**63) that depends on `key` alone: the same on every machine, in every order of work."""
    parts = [part if isinstance(part, str) else operator.index(part) for part in key]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


# Fills an empty mask (N, ...) with ones at the given probability of keeping, and zeros.
DrawMask = Callable[[Tensor, float], Tensor]


def masks_by_row(seeds: Sequence[int], counts: Sequence[int] | None = None) -> DrawMask:
    """Masks whose rows come each from a generator of its own, whatever the rest of the batch and the global state.

    Args:
        seeds: one per row, or per block of rows that share a generator (the boxes of an image).
        counts: rows of each block; None for one each.
    """
    counts = [1] * len(seeds) if counts is None else list(counts)
    if len(counts) != len(seeds):
        raise ValueError(f"counts must hold one count per seed: {len(counts)} counts for {len(seeds)} seeds")
    generators: dict[torch.device, list[torch.Generator]] = {}

    def draw(mask: Tensor, keep: float) -> Tensor:
        if len(mask) != sum(counts):
            raise ValueError(f"seeds must hold one seed per row: {sum(counts)} seeds for {len(mask)} rows")
        if mask.device not in generators:  # shared by all modules: a row's masks follow one another
            generators[mask.device] = [torch.Generator(mask.device).manual_seed(seed) for seed in seeds]
        for rows, generator in zip(mask.split(counts), generators[mask.device], strict=True):
            rows.bernoulli_(keep, generator=generator)
        return mask

    return draw


def masks_of_shard(seed: int, start: int, total: int) -> DrawMask:
    """The rows from `start` on of masks for a batch of `total` rows: ranks that share a batch draw what one would."""
    generators: dict[torch.device, torch.Generator] = {}

    def draw(mask: Tensor, keep: float) -> Tensor:
        if start + len(mask) > total:
            raise ValueError(f"rows {start} to {start + len(mask)} do not fit a batch of total={total}")
        if mask.device not in generators:
            generators[mask.device] = torch.Generator(mask.device).manual_seed(seed)
        whole = mask.new_empty(total, *mask.shape[1:]).bernoulli_(keep, generator=generators[mask.device])
        return whole[start : start + len(mask)]

    return draw


@contextmanager
def drawn_dropout(model: nn.Module, draw: DrawMask) -> Iterator[None]:
    """While this lasts, the dropout modules that are on take their masks from `draw`."""
    modules = dropout_modules(model)
    for module in modules:
        if not isinstance(module, _KEYED):
            raise ValueError(f"seeds work with {[kind.__name__ for kind in _KEYED]}, not with {type(module).__name__}")
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = _drawn_forward(module, draw)
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _drawn_forward(module: nn.Module, draw: DrawMask) -> Callable[[Tensor], Tensor]:
    def forward(values: Tensor) -> Tensor:
        if not module.training or module.p == 0:
            return values
        if module.p == 1:
            return torch.zeros_like(values)
        shape = values.shape
        if isinstance(module, _WHOLE_CHANNELS):
            shape = (*shape[:2], *(1 for _ in shape[2:]))
        return values * draw(values.new_empty(shape), 1 - module.p).div_(1 - module.p)

    return forward


@contextmanager
def mc_dropout(
    model: nn.Module,
    rate: float | None = None,
    seeds: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
) -> Iterator[None]:
    """Turn on the dropout modules of an eval model, and only them; on exit each gets back what it had.

    Frameworks call `.eval()` in their own inference loops: enter this inside forward, not around the loop.

    Args:
        model: in eval mode, with at least one dropout module.
        rate: probability of dropping for all of them; None keeps each module's own.
        seeds, counts: one seed per row of the batch, or per `counts` rows, see `masks_by_row`; None leaves the drawing
            as it is, from the global state.
    """
    modules = dropout_modules(model)
    if not modules:
        raise ValueError(f"model must hold dropout modules to sample, {type(model).__name__} has none")
    if model.training:
        raise ValueError("model must be in eval mode: in training mode batch statistics would change, too")
    if rate is not None and not 0 <= rate < 1:
        raise ValueError(f"rate must lie in [0, 1), got {rate}")
    before = [(module.training, module.p) for module in modules]
    try:
        for module in modules:
            module.training = True
            module.p = module.p if rate is None else rate
        with nullcontext() if seeds is None else drawn_dropout(model, masks_by_row(seeds, counts)):
            yield
    finally:
        for module, (training, p) in zip(modules, before, strict=True):
            module.training, module.p = training, p


@torch.no_grad()
def mc_mean_std(
    model: nn.Module,
    *inputs: Tensor,
    num_samples: int,
    transform: Callable[[Tensor], Tensor] = lambda logits: logits,
    rate: float | None = None,
    seed: int | None = None,
    keys: Sequence[int | str] | None = None,
    ddof: int = 0,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of M stochastic passes, as running sums: memory does not grow with M.

    Args:
        model: called as `model(*inputs)` with its dropout on, see `mc_dropout`.
        inputs: tensors of N rows.
        num_samples: M.
        transform: applied to each output before averaging. The default averages what the model gives (logits, as
            the DDN paper does); `lambda z: z.softmax(1)` averages probabilities.
        rate: dropout rate, None for each module's own.
        seed: makes the draws a function of (seed, key, number of the draw) alone, whatever the batch.
        keys: identities of the N rows (image ids) to go with `seed`; their positions by default.
        ddof: the sum of squares is divided by M - ddof.
    """
    check_positive_int("num_samples", num_samples)
    if num_samples <= ddof:
        raise ValueError(f"num_samples must be more than ddof={ddof}, got {num_samples}")
    if keys is not None and seed is None:
        raise ValueError("keys must come with a seed")
    if seed is not None and keys is None:
        keys = range(len(inputs[0]))
    moments = RunningMoments()
    for draw in range(num_samples):
        seeds = None if seed is None else [derive_seed(seed, key, draw) for key in keys]
        with mc_dropout(model, rate, seeds):
            moments.update(transform(model(*inputs)))
    return moments.mean, moments.std(ddof)
