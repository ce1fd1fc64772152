"""Settings for every test: one thread, and property tests that draw the same examples each time."""

import gc
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

CORE = Path(__file__).with_name("core")

# Two threads on a shared machine stall at random, and the order of a float sum must not depend on their number.
torch.set_num_threads(1)

settings.register_profile("project", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("project")


def pytest_collection_finish():
    """Leave what is imported by now out of garbage collections, whole ones of which every data set of mmengine runs."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Coverage is what the core's own tests reach: the others would be traced line by line for nothing."""
    if CORE in item.path.parents:
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
