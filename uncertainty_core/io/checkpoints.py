"""What is wrong with a checkpoint, in the same words whichever framework reads it."""

import os
import pickle
from collections.abc import Sequence

from ..errors import UserError

# What reading something that is no checkpoint may end in.
DAMAGED = (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, TypeError, AttributeError, ValueError)


class CheckpointError(UserError):
    """A checkpoint that must not or cannot be loaded; the message is one sentence with the reason."""


def damaged(path: str | os.PathLike, error: Exception) -> CheckpointError:
    """The error to raise when reading `path` ended in `error`."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # of torch's advice, which includes to load such a file all the same, the one line that names what is in it
    reason = next((line for line in lines if "GLOBAL" in line), lines[0]).strip()
    return CheckpointError(f"{path} is not a checkpoint of weights alone, or is damaged: {reason}")


def other_shape(
    checkpoint: str | os.PathLike, name: str, found: Sequence[int], wanted: Sequence[int]
) -> CheckpointError:
    """The error to raise when the weight `name` has another shape in `checkpoint` than in the model."""
    return CheckpointError(
        f"{checkpoint} does not fit the model: {name} has shape {tuple(found)} there and {tuple(wanted)} here "
        "(another number of classes, or another architecture)"
    )
