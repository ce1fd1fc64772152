"""A student of a LazyConfig as plain Detectron2 knows it."""

import tempfile
from pathlib import Path

import torch
from detectron2.config import LazyConfig
from omegaconf import DictConfig
from torch import nn

from uncertainty_core.io.files import open_atomically, write_text

from ..boxes import without_box_std
from ..convert import to_plain


def export_lazy(cfg: DictConfig, model: nn.Module, folder: str | Path) -> tuple[Path, Path | None]:
    """Write model.pth and, where a file can hold the config, config.yaml into `folder`; returns their paths.

    config.yaml is for `LazyConfig.load`. A config that holds functions without a name, such as a lambda, has no such
    form: the weights fit the model of the LazyConfig that was distilled.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, config = folder / "model.pth", folder / "config.yaml"
    with open_atomically(weights) as file:
        torch.save({"model": without_box_std(model.state_dict())}, file)
    plain = to_plain(cfg)
    plain.train.init_checkpoint = str(weights)
    text = _yaml(plain)
    if text is None:
        return weights, None
    write_text(config, text)
    return weights, config


def _yaml(cfg: DictConfig) -> str | None:
    """The config as Detectron2 writes it; None where it falls back to a pickle."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        LazyConfig.save(cfg, str(file))
        return None if file.with_name("config.yaml.pkl").exists() or not file.exists() else file.read_text()
