"""Settings for every test: one thread, and property tests that draw the same examples each time."""

import gc
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from uncertainty_core.intervals import classified, detected, segmented

CORE = Path(__file__).with_name("core")

# Two threads on a shared machine stall at random, and the order of a float sum must not depend on their number.
torch.set_num_threads(1)

settings.register_profile("project", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("project")


def pytest_collection_finish():
    """Leave what is imported by now out of garbage collections, whole ones of which every data set of mmengine runs."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """The core's own tests are what coverage looks at, and intervals of many resamples are needed for."""
    if CORE in item.path.parents:
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)  # the others would be traced line by line for nothing
    with pytest.MonkeyPatch.context() as patch:
        for module in (classified, detected, segmented):
            patch.setattr(module, "NUM_RESAMPLES", 50)
        try:
            return (yield)
        finally:
            sys.settrace(tracer)
