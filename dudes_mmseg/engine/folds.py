"""Members of which each leaves a part of the training images out: member n fold n modulo the number of folds."""

import copy

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from uncertainty_core.sampling.folds import held_out, image_key

from ..cli import ConfigError, unwrapped
from ..targets.check import image_paths


def training_images(cfg: Config) -> list[str]:
    """Keys of the training images of a config in order; ConfigError unless it has a single data set, whole."""
    init_default_scope(cfg.get("default_scope") or "mmseg")
    dataset = unwrapped(cfg.train_dataloader.dataset)
    if "datasets" in dataset or dataset.get("indices") is not None:
        raise ConfigError("folds are of one data set, whole: train_dataloader.dataset joins several, or has indices")
    return [image_key(path) for path in image_paths(DATASETS.build(dataset | {"pipeline": []}))]


def leave_out(cfg: Config, fold: int, num_folds: int) -> list[str]:
    """Restrict the training of `cfg` to the images of the other folds; returns the keys of those left out."""
    cfg.train_dataloader = copy.deepcopy(cfg.train_dataloader)  # which copies of a config share
    images = training_images(cfg)
    left_out = held_out(images, fold, num_folds)
    unwrapped(cfg.train_dataloader.dataset)["indices"] = [number for number, out in enumerate(left_out) if not out]
    return [image for image, out in zip(images, left_out, strict=True) if out]
