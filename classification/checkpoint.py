"""Weights and training state on disk: safetensors and JSON, complete or absent.

A checkpoint is a folder `epoch-0003` with `state.safetensors` (weights and optimizer) and `state.json`. It is written
beside its place and renamed when complete. A finished network is a pair `model.safetensors`, `model.json`.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from uncertainty_core import state_dict_sha256
from uncertainty_core.io.checkpoints import CheckpointError
from uncertainty_core.io.files import write_atomically, write_text
from uncertainty_core.io.strict_json import strict_json


def save_checkpoint(
    folder: Path, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer, record: dict[str, Any]
) -> None:
    """Write the state after `epoch` epochs, with any JSON `record`, and remove the older ones."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
    place = folder / f"epoch-{epoch:04d}"
    part = folder / "epoch.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write_tensors(part / "state.safetensors", tensors)
        write_text(part / "state.json", strict_json({"epoch": epoch, **record}))
    except OSError:  # of a full disk, which needs the room
        shutil.rmtree(part)
        raise
    shutil.rmtree(place, ignore_errors=True)
    os.replace(part, place)
    remove_older(folder)


def remove_older(folder: Path) -> None:
    """Remove all checkpoints but the newest."""
    for old in sorted(folder.glob("epoch-*"))[:-1]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Load the newest checkpoint into both and return its record; None if there is none."""
    found = sorted(folder.glob("epoch-*"))
    if not found:
        return None
    tensors = _load(found[-1] / "state.safetensors")
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            states.setdefault(int(index), {})[key] = tensor
    _load_weights(model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}, found[-1])
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return _read_record(found[-1] / "state.json")


def save_model(folder: Path, model: nn.Module, record: dict[str, Any]) -> None:
    """Write the finished weights and a JSON `record` of what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", model.state_dict())
    write_text(folder / "model.json", strict_json(record))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, complete or not at all."""
    # not safetensors' save_file, which leaves a file behind where the disk is full
    write_atomically(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def load_model(folder: Path, model: nn.Module) -> dict[str, Any]:
    """Load finished weights into `model` and return their record."""
    if not (folder / "model.json").exists():
        raise CheckpointError(f"{folder} holds no finished network: train it first")
    _load_weights(model, _load(folder / "model.safetensors"), folder)
    return read_model_record(folder)


def read_model_record(folder: Path) -> dict[str, Any]:
    """The record of finished weights."""
    return _read_record(folder / "model.json")


def network_sha256(folder: Path) -> str:
    """What tells finished weights from all others."""
    return state_dict_sha256(_load(folder / "model.safetensors"))


def is_finished(folder: Path) -> bool:
    """Whether `save_model` completed there."""
    return (folder / "model.json").exists()


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _load_weights(model: nn.Module, weights: dict[str, torch.Tensor], origin: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).splitlines()[1:2]).strip()
        raise CheckpointError(f"{origin} holds another network: {first}") from None
