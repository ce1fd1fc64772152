"""What the command-line tools share: the config that a command line ends in, its data sets, logs and processes."""

import argparse
import difflib
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml
from detectron2 import engine
from detectron2.config import CfgNode, get_cfg
from detectron2.utils import comm
from omegaconf import DictConfig

from uncertainty_core.cli import device_text, echo, log_to
from uncertainty_core.cli.configs import package_folder
from uncertainty_core.cli.console import log_path
from uncertainty_core.cli.flags import OWN, find_detector_config, is_lazy
from uncertainty_core.io.claims import flatten

from . import lazy
from .config import ConfigError, add_ddn_config, check_ddn_config
from .convert import is_ddn, to_ddn
from .data import (
    check_num_classes,
    check_on_disk,
    check_same_categories,
    register_own,
    register_scenes,
    register_unlabelled,
)
from .schedule import set_fine_tuning


def read_config(name: str, trusted: bool = False) -> CfgNode:
    """Detectron2's defaults, this package's keys, and the file that `find_detector_config` finds.

    Args:
        name: of the file.
        trusted: let its tags run code.
    """
    cfg = get_cfg()
    add_ddn_config(cfg)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    path = find_detector_config(name)
    try:
        # some configs of the zoo compute with tags, and Detectron2's own files are trusted
        cfg.merge_from_file(str(path), allow_unsafe=trusted or package_folder("detectron2") in path.parents)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {_explained(error, cfg)}") from None
    return cfg


def _explained(error: Exception, cfg: CfgNode) -> str:
    """The words of an error that a merge into `cfg` ended with, and what to do about a key that there is not."""
    unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", str(error))
    if unknown is None:
        return " ".join(str(error).split())
    near = difflib.get_close_matches(unknown[1], flatten(cfg), n=1, cutoff=0.8)
    hint = (
        f"did you mean {near[0]}"
        if near
        else "if a project of Detectron2 adds it, as PointRend does, distil from Python: docs/your-own-model.md"
    )
    return f"there is no key {unknown[1]}; {hint}"


def build_config(args: argparse.Namespace) -> CfgNode:
    """The config that the command line asks for, with its data sets registered."""
    cfg = read_config(args.config_file, args.trust_config)
    if fine_tunes := args.ddn and not is_ddn(cfg):
        cfg = to_ddn(cfg)
    register_scenes()
    for key, name in register_own(args).items():
        cfg.DATASETS[key] = (name,)
    if getattr(args, "unlabelled_images", None) is not None:
        register_unlabelled(f"{OWN}unlabelled", args.unlabelled_images, args.unlabelled_json)
        cfg.MODEL.DDN.UNLABELLED = (f"{OWN}unlabelled",)
    try:
        cfg.merge_from_list(args.opts)
        if fine_tunes:
            set_fine_tuning(cfg, args.opts[::2])
    except (AssertionError, KeyError, ValueError) as error:  # unknown keys, wrong types
        raise ConfigError(f"in the options at the end of the command line: {_explained(error, cfg)}") from None
    return cfg


def check_datasets(cfg: CfgNode, names: Sequence[str]) -> None:
    """Raise DatasetError unless the data sets are there, and go with each other and with the model."""
    check_on_disk(names)  # the others may load them
    check_num_classes(names, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    check_same_categories(names)


def check_proposals(cfg: CfgNode) -> None:
    """Raise ConfigError if precomputed proposals are not on this machine."""
    for key in ("PROPOSAL_FILES_TRAIN", "PROPOSAL_FILES_TEST") if cfg.MODEL.LOAD_PROPOSALS else ():
        for path in cfg.DATASETS[key]:
            if not Path(path).is_file():
                raise ConfigError(
                    f"the config reads proposals from {path}, which is no file of this machine: get it, and name it in "
                    f"DATASETS.{key}"
                )


def setup(args: argparse.Namespace) -> CfgNode | DictConfig:
    """The config that the command line asks for, checked, and Detectron2's usual set-up of logs and seeds."""
    if is_lazy(args.config_file):
        cfg = lazy.build_config(args)
        lazy.check(cfg, getattr(args, "eval_only", False))
        _start(cfg, args, cfg.train.output_dir, cfg.train.device)
        return cfg
    cfg = build_config(args)
    if is_ddn(cfg):
        check_ddn_config(cfg)
    elif cfg.MODEL.DDN.UNLABELLED:
        raise ConfigError("images without labels teach students alone: add --ddn, or take one of the ddn_* configs")
    names = cfg.DATASETS.TEST if getattr(args, "eval_only", False) else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    check_datasets(cfg, names)
    check_on_disk(cfg.MODEL.DDN.UNLABELLED)
    check_proposals(cfg)
    cfg.freeze()
    _start(cfg, args, cfg.OUTPUT_DIR, cfg.MODEL.DEVICE)
    return cfg


def _start(cfg: CfgNode | DictConfig, args: argparse.Namespace, output: str, device: str) -> None:
    log_to(Path(output) / "log.txt")
    args.config_file = str(find_detector_config(args.config_file))  # which Detectron2 copies into its log
    engine.default_setup(cfg, args)
    if log_path() is not None:
        _log_once()
    if comm.is_main_process():
        echo(device_text(device))


def _log_once() -> None:
    """Detectron2 writes its log into the very file that its output goes to: one of the two is enough."""
    for name in ("detectron2", "fvcore"):
        logger = logging.getLogger(name)
        for handler in [handler for handler in logger.handlers if getattr(handler, "stream", None) is sys.stdout]:
            logger.removeHandler(handler)


def launch(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Run `main(args)` in as many processes as the command line asks for."""
    engine.launch(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))
