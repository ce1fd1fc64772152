"""What the drawn data sets share: random numbers that never change, and a texture made of them.

Shapes: H rows, W columns.
"""

import numpy as np

from .sampling.mc_dropout import derive_seed

Random = np.random.RandomState  # its streams are frozen for ever, those of numpy's Generator are not


def keyed_random(*key: int | str) -> Random:
    """Random numbers that depend on the key alone, the same on every machine."""
    high, low = divmod(derive_seed(*key), 2**32)
    return Random([high, low])


def clouds(random: Random, height: int, width: int, period: int) -> np.ndarray:
    """Random values (H, W) in [-1, 1] on a grid of `period` pixels, linear between its points."""
    values = random.uniform(-1, 1, (height // period + 2, width // period + 2))
    for axis, length in enumerate((height, width)):
        cell, rest = np.divmod(np.arange(length), period)
        share = np.expand_dims(rest / period, 1 - axis)
        values = np.take(values, cell, axis) * (1 - share) + np.take(values, cell + 1, axis) * share
    return values
