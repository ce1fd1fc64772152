"""A disk without room, as far as this process can tell."""

import resource
from contextlib import contextmanager


@contextmanager
def full_disk(room):
    """Writing more than `room` bytes to any file ends in an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
