"""A LazyConfig from the command line: the file, its distilled form, data sets of one's own, and `key=value`."""

import argparse
from collections.abc import Collection, Sequence

import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig, OmegaConf

from uncertainty_core.cli.flags import find_detector_config
from uncertainty_core.errors import did_you_mean

from ..config import ConfigError
from ..convert import is_ddn, to_ddn
from ..convert.lazy import check_lazy
from ..data import check_num_classes, check_on_disk, check_same_categories, register_own, register_scenes
from ..schedule import CHECKPOINTS, GRADIENT_NORM, ITERATIONS, MOST_WARM_UP

_SECTIONS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
RATE_OF_FINE_TUNING = (
    1 / 20
)  # of the rate that a config declares: of 0.02, which most of Detectron2's have, the paper's


def read_config(name: str) -> DictConfig:
    """The LazyConfig in the file that `find_detector_config` finds, which is run; for this machine if it has no GPU.

    `train` gets two keys where it lacks them: "seed", which Detectron2 knows, and "clip_gradients", the largest norm
    of the gradient of each parameter, or None.
    """
    path = find_detector_config(name)
    try:
        cfg = LazyConfig.load(str(path))
    except Exception as error:  # a config is a program, which can raise anything
        raise ConfigError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    missing = [section for section in _SECTIONS if section not in cfg]
    if missing:
        raise ConfigError(f"{path} sets no {missing[0]}: a LazyConfig for a training has {', '.join(_SECTIONS)}")
    cfg.train = OmegaConf.merge({"seed": -1, "clip_gradients": None}, cfg.train)
    if not torch.cuda.is_available():
        cfg.train.device, cfg.train.amp = "cpu", {"enabled": False}
    return cfg


def build_config(args: argparse.Namespace) -> DictConfig:
    """The config that the command line asks for, with its data sets registered."""
    if getattr(args, "unlabelled_images", None) is not None:
        raise ConfigError("--unlabelled-images is for YAML configs")
    cfg = read_config(args.config_file)
    if fine_tunes := args.ddn and not is_ddn(cfg):
        cfg = to_ddn(cfg)
    register_scenes()
    for key, name in register_own(args).items():
        _dataset(cfg, key.lower()).names = name
    given = [word.split("=", 1)[0].lstrip("+") for word in args.opts]
    _check_keys(cfg, given)
    try:
        LazyConfig.apply_overrides(cfg, list(args.opts))
    except Exception as error:  # those of two parsers and of omegaconf have no common base
        raise ConfigError(f"in the options at the end of the command line: {' '.join(str(error).split())}") from None
    if type(cfg.train.max_iter) is not int or cfg.train.max_iter < 1:
        raise ConfigError(f"train.max_iter must be a whole number of at least 1, got {cfg.train.max_iter!r}")
    if fine_tunes:
        set_fine_tuning(cfg, given)
    return cfg


def _check_keys(cfg: DictConfig, keys: Sequence[str]) -> None:
    """Refuse keys that nothing would read; arguments of calls are checked when they are called."""
    for key in keys:
        words = key.split(".")
        for depth, word in enumerate(words):
            node = OmegaConf.select(cfg, ".".join(words[:depth])) if depth else cfg
            name = word.partition("[")[0]
            if isinstance(node, DictConfig) and "_target_" not in node and name not in node:
                raise ConfigError(f"the config has no key {key}{did_you_mean(name, map(str, node))}")


def _dataset(cfg: DictConfig, part: str) -> DictConfig:
    """The call that gets the images of dataloader.train or dataloader.test."""
    node = OmegaConf.select(cfg, f"dataloader.{part}.dataset")
    if not isinstance(node, DictConfig) or "names" not in node:
        raise ConfigError(f"dataloader.{part}.dataset has no names of data sets: register them in the config file")
    return node


def dataset_names(cfg: DictConfig, part: str) -> tuple[str, ...]:
    """The data sets of "train" or "test"."""
    names = _dataset(cfg, part).names
    return (names,) if isinstance(names, str) else tuple(names)


def check(cfg: DictConfig, eval_only: bool) -> None:
    """Raise a UserError where settings contradict each other, or data sets do not fit them or are not there."""
    if is_ddn(cfg):
        check_lazy(cfg)
    names = (*(() if eval_only else dataset_names(cfg, "train")), *dataset_names(cfg, "test"))
    check_on_disk(names)
    if "roi_heads" in cfg.model:
        check_num_classes(names, cfg.model.roi_heads.num_classes)
    check_same_categories(names)


def set_fine_tuning(cfg: DictConfig, given: Collection[str] = ()) -> None:
    """Set the schedule of fine-tuning a box head in place, but for the keys in `given`, which the user has chosen."""

    def choose(key: str, value: object) -> None:
        if not any(f"{chosen}.".startswith(f"{key}.") for chosen in given):
            OmegaConf.update(cfg, key, value, merge=False, force_add=True)

    choose("train.max_iter", ITERATIONS)
    iterations = cfg.train.max_iter
    if "lr" in cfg.optimizer:
        choose("optimizer.lr", cfg.optimizer.lr * RATE_OF_FINE_TUNING)
    warm_up = L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(values=[1.0], milestones=[], num_updates=iterations),
        warmup_factor=0.001,
        warmup_length=min(MOST_WARM_UP, iterations // 10) / iterations,
    )
    choose("lr_multiplier", warm_up)
    choose("train.checkpointer.period", max(1, -(-iterations // CHECKPOINTS)))
    choose("train.clip_gradients", GRADIENT_NORM)


def schedule_text(cfg: DictConfig) -> str:
    """The schedule of a training in one line, with the way to another one."""
    clipping = cfg.train.clip_gradients
    clipped = "no clipping" if clipping is None else f"gradients clipped (norm {clipping:g})"
    return (
        f"schedule: {cfg.train.max_iter} iterations, learning rate {cfg.optimizer.get('lr', float('nan')):g}, "
        f"checkpoint every {cfg.train.checkpointer.period}, {clipped}; train.*, optimizer.* and lr_multiplier.* "
        "options change it"
    )
