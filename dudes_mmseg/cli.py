"""What the command-line tools share: mmsegmentation's own arguments, and the config they end in."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction

from uncertainty_core.errors import UserError

from .compat import silence

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dudes"


class ConfigError(UserError):
    """A config that cannot be used as it is."""


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of mmsegmentation's own tools that all of ours have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a config file, or the name of one in configs/dudes")
    parser.add_argument("--work-dir", metavar="DIR", help="logs, checkpoints, results; work_dirs/<config> by default")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="override values of the config"
    )
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none")
    # torch.distributed.launch passes it under either name
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def find_config(name: str) -> Path:
    """A path as it is, or a name in configs/dudes, with or without `.py`."""
    for path in (Path(name), CONFIGS / name, CONFIGS / f"{name}.py"):
        if path.is_file():
            return path
    known = (path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
    raise ConfigError(f"config {name!r} is neither a file nor one of {', '.join(sorted(map(str, known)))}")


def read_config(name: str, options: dict | None = None) -> Config:
    """The config that `find_config` finds, with `options` on top."""
    path = find_config(name)
    try:
        cfg = Config.fromfile(str(path))
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError, SyntaxError, NameError, FileNotFoundError, AttributeError) as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    return cfg


def build_config(args: argparse.Namespace) -> Config:
    """The config that the command line asks for, with its place for results and its launcher."""
    silence()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs") / find_config(args.config).stem)
    return cfg


def check_data(loader: ConfigDict | None) -> None:
    """Raise ConfigError unless the folders that a data loader's data set reads are there."""
    dataset = (loader or {}).get("dataset") or {}
    while "dataset" in dataset:  # wrappers such as RepeatDataset
        dataset = dataset["dataset"]
    root = dataset.get("data_root") or ""
    for prefix in (dataset.get("data_prefix") or {}).values():
        folder = Path(root) / (prefix or "")
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: put the data there, or set data_root to where it is")
