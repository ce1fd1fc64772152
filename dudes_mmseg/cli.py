"""From a command line to the config that it asks for."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device

from uncertainty_core.cli import device_text, echo, log_to
from uncertainty_core.cli.configs import find_config
from uncertainty_core.errors import UserError

from .compat import silence


class ConfigError(UserError):
    """A config that cannot be used as it is."""


def read_config(name: str, assignments: Sequence[str] = ()) -> Config:
    """The config of this name, see `find_config`, with what `--cfg-options` assigns on top: KEY=VALUE."""
    path = find_config(name, "dudes")
    try:
        cfg = Config.fromfile(str(path))
        cfg.merge_from_dict(_options(assignments))
    except (KeyError, TypeError, SyntaxError, NameError, FileNotFoundError, AttributeError) as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    return cfg


def _options(assignments: Sequence[str]) -> dict[str, Any]:
    """Keys and values as mmengine reads them."""
    namespace = argparse.Namespace()
    try:
        DictAction(["--cfg-options"], "options")(argparse.ArgumentParser(), namespace, assignments)
    except AssertionError as error:  # brackets that do not match
        raise ConfigError(f"--cfg-options: {error}") from None
    return namespace.options


def build_config(args: argparse.Namespace) -> Config:
    """The config that the arguments of `segmentor_parser` ask for, with its place for results and its launcher.

    From now on the log is in that place.
    """
    silence()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    name = find_config(args.config, "dudes").stem
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs") / name)
    log_to(Path(cfg.work_dir) / "log.txt")
    echo(device_text(get_device()))
    return cfg


def unwrapped(dataset: ConfigDict) -> ConfigDict:
    """The config of a data set inside wrappers such as RepeatDataset; of joined ones (`datasets`) that of all."""
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def check_data(loader: ConfigDict | None) -> None:
    """Raise ConfigError unless the folders that a data loader's data set reads are there."""
    dataset = unwrapped((loader or {}).get("dataset") or {})
    root = dataset.get("data_root") or ""
    for prefix in (dataset.get("data_prefix") or {}).values():
        folder = Path(root) / (prefix or "")
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: put the data there, or set data_root to where it is")
