"""Settings for every test: one thread, and property tests that draw the same examples each time."""

import gc

import torch
from hypothesis import settings

# Two threads on a shared machine stall at random, and the order of a float sum must not depend on their number.
torch.set_num_threads(1)

settings.register_profile("project", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("project")


def pytest_collection_finish():
    """Leave what is imported by now out of garbage collections, whole ones of which every data set of mmengine runs."""
    gc.freeze()
