"""What a run left behind, but for times and logs: equal for two runs that did the same."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Logs tell of all lives of a run that was killed: text, curves of TensorBoard, and what mmengine keeps of each start.
LOGS = re.compile(r"(^|/)(out\.txt|err\.txt|log\.txt|metrics\.json|events\.out\.[^/]*|\d{8}_\d{6}/.*)$")
# When and for how long, in tables, records and what mmengine keeps of its log, whose name holds a time, too.
# "weights" are checksums of checkpoint files, which hold times.
TIMES = re.compile(r"(^|/)(seconds|time|data_time|iter_time|eta_seconds|eta|experiment_name|weights)$")
# A config of mmengine, beside the checkpoints and in each of them, tells where the last start went on.
RESUMED = re.compile(r"^(resume|load_from) = .*$", re.MULTILINE)
# Cells of a page with one decimal, as its seconds are; metrics are compared in the records, too.
SECONDS = re.compile(r"(?<=<td>)\d[\d,]*\.\d(?=<)")


def contents(folder: Path) -> dict[str, str]:
    """By name, a checksum of what each file under `folder` holds."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return {name: _sha256(_held(folder / name)) for name in names if not LOGS.search(name)}


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Names of files that only one of two runs has, or that differ."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _held(path: Path) -> Any:
    """The content of a file that may hold times, as values; bytes of any other."""
    if path.suffix == ".pth":
        return torch.load(path, map_location="cpu", weights_only=False)  # which we have written ourselves
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        return SECONDS.sub("", path.read_text(encoding="utf-8"))
    return path.read_bytes()


def _sha256(value: Any) -> str:
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """A value as bytes: tensors by their content, objects by their fields, without entries that are times."""
    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous().view(torch.uint8) if value.dim() else value.numpy()
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            if not TIMES.search(str(key)):
                yield str(key).encode()
                yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        yield str(len(value)).encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, str):
        yield RESUMED.sub("", value).encode()
    elif hasattr(value, "__dict__") and not callable(value):
        yield type(value).__name__.encode()
        yield from _parts(vars(value))
    else:
        yield repr(value).encode()
