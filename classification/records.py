"""What `evaluate` measured, on disk: `<folder>/evaluation/<row>/seed-<k>.json`, and the predictions beside it.

Shapes: N images, C classes.
"""

import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from .checkpoint import CheckpointError


def write_record(folder: Path, record: dict[str, Any], probabilities: Tensor) -> None:
    """Write a row's record, and its predictions (N, C), under the experiment's `folder`."""
    place = folder / "evaluation" / record["row"]
    place.mkdir(parents=True, exist_ok=True)
    save_file({"probabilities": probabilities.cpu()}, place / f"seed-{record['seed']}.safetensors")
    part = place / "record.part"
    part.write_text(json.dumps(_strict(record), indent=1, allow_nan=False) + "\n")
    part.replace(place / f"seed-{record['seed']}.json")


def read_evaluation(folder: Path) -> list[dict[str, Any]]:
    """All records under an experiment's `folder`."""
    found = []
    for path in sorted((folder / "evaluation").glob("*/seed-*.json")):
        try:
            found.append(_loose(json.loads(path.read_text())))
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}): run evaluate again") from None
    return found


def _strict(value: Any) -> Any:
    """As JSON has it: NaN becomes null, and an infinity the word that `float` reads."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _loose(value: Any) -> Any:
    """Null becomes NaN again: no record holds it for anything else."""
    if isinstance(value, dict):
        return {key: _loose(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_loose(item) for item in value]
    return math.nan if value is None else value
