"""Checkpoints of mmengine that can do nothing but hold weights, and that have to fit."""

import glob
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.serialization import safe_globals

from uncertainty_core.io.checkpoints import DAMAGED, CheckpointError, damaged, other_shape


class Checkpoint(NamedTuple):
    """weights: tensors by name, mapped from the file where its format allows it; classes: their names, if known."""

    path: str
    weights: dict[str, Tensor]
    classes: tuple[str, ...] | None


class _Ignored:
    """Stands for what a checkpoint of mmengine holds besides weights, its logs above all; nothing of it is made."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_IGNORED_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "_codecs.encode",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{part}" for core in ("core", "_core") for part in ("_reconstruct", "scalar")),
)
# Of no use in a teacher: a member may have been trained with them or not.
_NOT_NEEDED = ("auxiliary_head.", "uncertainty_head.")
_LOG_OF_A_TRAINING = re.compile(r"(iter|epoch)_\d+\.pth")


def find_checkpoints(checkpoints: str | Sequence[str]) -> list[str]:
    """The paths of a list of checkpoints and patterns; those of a pattern in alphabetical order, none twice."""
    names = [checkpoints] if isinstance(checkpoints, (str, Path)) else list(checkpoints)
    files: dict[Path, str] = {}
    for name in names:
        for path in _matches(str(name)):
            files.setdefault(Path(path).resolve(), path)
    return list(files.values())


def _matches(name: str) -> list[str]:
    if not glob.has_magic(name) or Path(name).exists():
        return [name]
    paths = sorted(glob.glob(name, recursive=True))
    if not paths:
        raise CheckpointError(f"no file matches {name}: train the members first, or correct the pattern")
    trainings: dict[Path, str] = {}
    for path in paths:
        if _LOG_OF_A_TRAINING.fullmatch(Path(path).name):
            other = trainings.setdefault(Path(path).parent, path)
            if other != path:
                raise CheckpointError(
                    f"{name} matches {other} and {path}, which are of one training: make the pattern name one of them "
                    "for each member, or list the files"
                )
    return paths


def read_checkpoint(path: str) -> Checkpoint:
    """Read weights and nothing else, whoever made the file."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path} does not exist: train this member first, or correct the path")
    try:
        with safe_globals([(_Ignored, name) for name in _IGNORED_NAMES]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        weights = content.get("state_dict", content)
        weights = {name.removeprefix("module."): values for name, values in weights.items()}
        if not weights or not all(isinstance(values, Tensor) for values in weights.values()):
            raise ValueError("it has no state_dict")
    except (*DAMAGED, OSError) as error:
        raise damaged(path, error) from None
    meta = content.get("meta")
    classes = (meta.get("dataset_meta") or {}).get("classes") if isinstance(meta, Mapping) else None
    return Checkpoint(path, weights, None if classes is None else tuple(classes))


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy weights into a model that they fit."""
    model.load_state_dict(checkpoint.weights, strict=False)
    torch.clear_autocast_cache()  # which would go on with the weights that were there before


def check_fits(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless `checkpoint` holds all weights of `model`, finite and of the same shapes."""
    path, wanted = checkpoint.path, model.state_dict()
    found = {name: values for name, values in checkpoint.weights.items() if not name.startswith(_NOT_NEEDED)}
    for name in wanted.keys() & found.keys():
        if wanted[name].shape != found[name].shape:
            raise other_shape(path, name, found[name].shape, wanted[name].shape)
    missing = [n for n in wanted if n not in found and not n.startswith(_NOT_NEEDED) and "num_batches_tracked" not in n]
    for what, names in (("lacks", missing), ("has besides", [name for name in found if name not in wanted])):
        if names:
            raise CheckpointError(f"{path} does not fit the model: it {what} {len(names)} weights, first {names[0]}")
    for name, values in found.items():
        if not values.isfinite().all():
            raise CheckpointError(f"{path} holds numbers that are not finite, in {name}")


def check_same_classes(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise CheckpointError if files that know the names of their classes disagree."""
    known = [checkpoint for checkpoint in checkpoints if checkpoint.classes is not None]
    for checkpoint in known[1:]:
        first = known[0]
        if checkpoint.classes != first.classes:
            raise CheckpointError(
                f"{checkpoint.path} was trained on other classes than {first.path}: "
                f"{_difference(checkpoint.classes, first.classes)}"
            )


def _difference(classes: Sequence[str], others: Sequence[str]) -> str:
    if len(classes) != len(others):
        return f"{len(classes)}, not {len(others)}"
    number = next(k for k, (one, other) in enumerate(zip(classes, others, strict=True)) if one != other)
    return f"number {number} is {classes[number]!r}, not {others[number]!r}"
