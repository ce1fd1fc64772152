"""Random numbers as a function of a key, so that whoever asks again draws the same."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_generators(key: int) -> None:
    """Seed the global generators of Python, numpy and torch; `key` is of 64 bits, see `derive_seed`."""
    random.seed(key)
    np.random.seed(key % 2**32)
    torch.manual_seed(key)


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """`seed_generators` for a while: afterwards the generators of the CPU go on as if nothing had been drawn."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_generators(key)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
