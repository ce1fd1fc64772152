"""Monte-Carlo dropout: sample a trained network by leaving its dropout on.

Shapes: N samples (rows of what reaches a dropout module), M draws.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .checks import check_positive_int
from .moments import RunningMoments

_WHOLE_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_KEYED = (nn.Dropout, *_WHOLE_CHANNELS)
_DROPOUT = (*_KEYED, nn.AlphaDropout, nn.FeatureAlphaDropout)


def dropout_modules(model: nn.Module) -> list[nn.Module]:
    """All dropout modules of `model`, itself included."""
    return [module for module in model.modules() if isinstance(module, _DROPOUT)]


def derive_seed(*key: int | str) -> int:
    """A seed in [0, 2**63) that depends on `key` alone: the same on every machine, in every order of work."""
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def mc_dropout(model: nn.Module, rate: float | None = None, seeds: Sequence[int] | None = None) -> Iterator[None]:
    """Turn on the dropout modules of an eval model, and only them; on exit each gets back what it had.

    Frameworks call `.eval()` in their own inference loops: enter this inside forward, not around the loop.

    Args:
        model: in eval mode, with at least one dropout module.
        rate: probability of dropping for all of them; None keeps each module's own.
        seeds: one per row of the batch. Each row then draws its masks from its own generator, so that they depend
            neither on the rest of the batch nor on the global random state.
    """
    modules = dropout_modules(model)
    if not modules:
        raise ValueError(f"model must hold dropout modules to sample, {type(model).__name__} has none")
    if model.training:
        raise ValueError("model must be in eval mode: in training mode batch statistics would change, too")
    if rate is not None and not 0 <= rate < 1:
        raise ValueError(f"rate must lie in [0, 1), got {rate}")
    before = [(module.training, module.p, module.__dict__.get("forward")) for module in modules]
    try:
        generators: dict[torch.device, list[torch.Generator]] = {}
        for module in modules:
            module.training = True
            module.p = module.p if rate is None else rate
            if seeds is not None:
                module.forward = _keyed_forward(module, seeds, generators)
        yield
    finally:
        for module, (training, p, forward) in zip(modules, before, strict=True):
            module.training, module.p = training, p
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward


def _keyed_forward(module: nn.Module, seeds: Sequence[int], generators: dict) -> Callable[[Tensor], Tensor]:
    if not isinstance(module, _KEYED):
        raise ValueError(f"seeds work with {[kind.__name__ for kind in _KEYED]}, not with {type(module).__name__}")

    def forward(values: Tensor) -> Tensor:
        if len(values) != len(seeds):
            raise ValueError(f"seeds must hold one seed per row: {len(seeds)} seeds for {len(values)} rows")
        if values.device not in generators:  # shared by all modules: a row's masks follow one another
            generators[values.device] = [torch.Generator(values.device).manual_seed(seed) for seed in seeds]
        shape = values.shape[1:]
        if isinstance(module, _WHOLE_CHANNELS):
            shape = (*shape[:1], *(1 for _ in shape[1:]))
        keep = values.new_empty(len(values), *shape)
        for row, generator in zip(keep, generators[values.device], strict=True):
            row.bernoulli_(1 - module.p, generator=generator)
        return values * keep.div_(1 - module.p) if module.p < 1 else torch.zeros_like(values)

    return forward


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
