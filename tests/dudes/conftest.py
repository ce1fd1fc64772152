"""What mmengine says can be read, and random numbers are the same each time."""

import logging

import pytest
import torch
import yapf.yapflib.yapf_api
from mmengine.logging import MMLogger

# mmengine formats the config for its log, its dump and each checkpoint: two thirds of the time of a tiny training
yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, False)


@pytest.fixture(autouse=True)
def same_random_numbers():
    """A test that draws from the global state draws the same each time."""
    torch.manual_seed(0)


@pytest.fixture
def log():
    """What mmengine's logger says to a user, as a list that grows."""

    class Listener(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    messages, listener = [], Listener(logging.INFO)
    logger = MMLogger.get_current_instance()
    logger.addHandler(listener)
    yield messages
    logger.removeHandler(listener)
