"""The texture of drawn pictures against a slow reference, and random numbers that never change."""

import numpy as np
import pytest

from uncertainty_core.textures import Random, clouds, keyed_random


@pytest.mark.parametrize(("height", "width", "period"), [(7, 9, 3), (4, 4, 2), (5, 3, 10)])
def test_clouds_are_linear_between_random_points(height, width, period):
    grid = Random(0).uniform(-1, 1, (height // period + 2, width // period + 2))
    found = clouds(Random(0), height, width, period)
    assert found.shape == (height, width)
    for y in range(height):
        for x in range(width):
            (top, down), (left, right) = divmod(y, period), divmod(x, period)
            a, b = down / period, right / period
            upper = (1 - b) * grid[top, left] + b * grid[top, left + 1]
            lower = (1 - b) * grid[top + 1, left] + b * grid[top + 1, left + 1]
            np.testing.assert_allclose(found[y, x], (1 - a) * upper + a * lower, atol=1e-12)


def test_random_numbers_depend_on_the_whole_key_alone():
    assert keyed_random("a", 1).uniform() == keyed_random("a", 1).uniform()
    assert len({keyed_random(*key).uniform() for key in (("a", 1), ("a", 2), ("b", 1), ("a", "1"))}) == 4
