"""What the command-line tools share: arguments, the config they end in, and errors in one sentence."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup

from .config import ConfigError, add_ddn_config, check_ddn_config
from .convert import is_ddn, to_ddn
from .data import check_num_classes, check_on_disk, check_same_categories, register_coco_format, register_scenes

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # which no user can do anything about
    from detectron2 import model_zoo

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "ddn"
# Data sets of one's own, and what they replace; the test set, where there is one, is evaluated in the place of val.
SPLITS = {"train": "TRAIN", "val": "TEST", "test": "TEST"}


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Detectron2's own flags, plus --ddn and data sets of one's own."""
    parser = default_argument_parser(epilog=description)
    parser.add_argument("--ddn", action="store_true", help="turn the config into its distilled form")
    for split in SPLITS:
        parser.add_argument(f"--{split}-json", metavar="FILE", help=f"{split} set: annotations in COCO's format")
        parser.add_argument(f"--{split}-images", metavar="DIR", help=f"folder of its images; known as custom_{split}")
    return parser


def find_config(name: str) -> str:
    """A path as it is, a name in configs/ddn/, or a name of Detectron2's model zoo."""
    for path in (Path(name), CONFIGS / name):
        if path.is_file():
            return str(path)
    try:
        zoo = model_zoo.get_config_file(name)
    except RuntimeError:
        zoo = ""
    if not (zoo.endswith(".yaml") and Path(zoo).is_file()):
        paths = (path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml") if path.parent.name != "_base_")
        known = sorted(map(str, paths))
        raise ConfigError(
            f"--config-file {name!r} is neither a file, nor in the model zoo, nor one of {', '.join(known)}"
        )
    return zoo


def read_config(name: str) -> CfgNode:
    """Detectron2's defaults, this package's keys, and the file that `find_config` finds."""
    cfg = get_cfg()
    add_ddn_config(cfg)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    path = find_config(name)
    try:
        cfg.merge_from_file(path)
    except (AssertionError, KeyError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    return cfg


def build_config(args: argparse.Namespace) -> CfgNode:
    """The config that the command line asks for, with its data sets registered."""
    cfg = read_config(args.config_file)
    if args.ddn:
        cfg = to_ddn(cfg)
    register_scenes()
    for split, key in SPLITS.items():
        json_file, images = getattr(args, f"{split}_json"), getattr(args, f"{split}_images")
        if (json_file is None) != (images is None):
            raise ConfigError(f"--{split}-json and --{split}-images go together")
        if json_file is not None:
            register_coco_format(f"custom_{split}", json_file, images)
            cfg.DATASETS[key] = (f"custom_{split}",)
    try:
        cfg.merge_from_list(args.opts)
    except (AssertionError, KeyError, ValueError) as error:  # unknown keys, odd numbers of words, wrong types
        raise ConfigError(f"in the options at the end of the command line: {error}") from None
    return cfg


def check_datasets(cfg: CfgNode, names: Sequence[str]) -> None:
    """Raise DatasetError unless the data sets are there, and go with each other and with the model."""
    check_on_disk(names)  # the others may load them
    check_num_classes(names, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    check_same_categories(names)


def setup(args: argparse.Namespace) -> CfgNode:
    """`build_config`, checked, and Detectron2's usual set-up of logs and seeds."""
    cfg = build_config(args)
    if is_ddn(cfg):
        check_ddn_config(cfg)
    names = cfg.DATASETS.TEST if getattr(args, "eval_only", False) else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    check_datasets(cfg, names)
    cfg.freeze()
    args.config_file = find_config(args.config_file)  # which Detectron2 copies into its log
    default_setup(cfg, args)
    return cfg
