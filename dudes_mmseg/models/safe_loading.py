"""mmengine's reading of checkpoints, so that nothing in a file is run: for `load_from`, `resume` and `init_cfg`.

Importing this replaces mmengine's own reader of local files. That of mmengine 0.10.7 cannot read the checkpoints which
it wrote itself under torch >= 2.6; later ones run any code in a file that they cannot read otherwise.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch.serialization import safe_globals

from uncertainty_core.io.checkpoints import DAMAGED, damaged


def _statistic(owner: type, name: str) -> Callable:
    """In the place of `getattr`, by which the log of a training names how it is averaged."""
    if owner is not HistoryBuffer or name not in HistoryBuffer._statistics_methods:
        raise ValueError(f"it asks for {name} of {owner}")
    return HistoryBuffer._statistics_methods[name]


_ARRAYS = np.zeros(0).__reduce__()[0]  # numpy's own function for arrays, wherever this version has it
_NUMBERS = np.float64(0).__reduce__()[0]
# What the log of a training consists of. Older files name functions of numpy by another module.
_ALLOWED = [
    HistoryBuffer,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
    (_statistic, "builtins.getattr"),
    *((_ARRAYS, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_NUMBERS, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any) -> dict[str, Any]:
    """What a checkpoint of mmengine holds: weights, and the state of a training; CheckpointError for anything else."""
    path = os.path.expanduser(filename)
    HistoryBuffer()  # the first one makes the table of statistics
    try:
        with safe_globals(_ALLOWED):
            return torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise
    except (*DAMAGED, OSError) as error:
        raise damaged(path, error) from None
