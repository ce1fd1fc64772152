"""Members that each leave a part of the training images out: only they can say how unsure one is of images never seen.

Which fold an image is in depends on its name alone. Member n leaves out fold n modulo the number of folds.
"""

import copy
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from uncertainty_core import derive_seed
from uncertainty_core.io.files import write_text
from uncertainty_core.io.strict_json import strict_json

from ..cli import ConfigError, unwrapped
from ..models.maps import image_key
from ..models.teacher import HELD_OUT
from ..targets.check import image_paths


def fold_of(image: str, num_folds: int) -> int:
    """The fold of the image of this key, from 0 to `num_folds` - 1; other images have no part in it."""
    return derive_seed("fold", image) % num_folds


def training_images(cfg: Config) -> list[str]:
    """Keys of the training images of a config in order; ConfigError unless it has a single data set, whole."""
    init_default_scope(cfg.get("default_scope") or "mmseg")
    dataset = unwrapped(cfg.train_dataloader.dataset)
    if "datasets" in dataset or dataset.get("indices") is not None:
        raise ConfigError("folds are of one data set, whole: train_dataloader.dataset joins several, or has indices")
    return [image_key({"img_path": path}) for path in image_paths(DATASETS.build(dataset | {"pipeline": []}))]


def leave_out(cfg: Config, fold: int, num_folds: int) -> list[str]:
    """Restrict the training of `cfg` to the images of the other folds; returns the keys of those left out."""
    cfg.train_dataloader = copy.deepcopy(cfg.train_dataloader)  # which copies of a config share
    images = training_images(cfg)
    folds = [fold_of(image, num_folds) for image in images]
    if missing := set(range(num_folds)) - set(folds):
        raise ConfigError(f"{len(images)} images are too few for {num_folds} folds: {len(missing)} of them are empty")
    unwrapped(cfg.train_dataloader.dataset)["indices"] = [number for number, found in enumerate(folds) if found != fold]
    return [image for image, found in zip(images, folds, strict=True) if found == fold]


def write_held_out(folder: Path, images: list[str]) -> None:
    """Note beside a member's checkpoint what it has never seen, for an ensemble that is `out_of_fold`."""
    write_text(folder / HELD_OUT, strict_json({"images": images}))
