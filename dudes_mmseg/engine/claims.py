"""What decides the outcome of a training or an evaluation, for the folder that remembers it."""

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS

from uncertainty_core import file_sha256
from uncertainty_core.io.claims import flatten, without

from ..models.calibration import KEYS, by_content
from ..targets.check import base_datasets, image_paths
from ..targets.codec import images_digest

WAY_OUT = "choose another --work-dir, or start over with --overwrite"

# Keys, or whole sections, of a config that say where and how a program runs.
_OF_A_PROGRAM = (
    *("work_dir", "launcher", "resume", "env_cfg", "log_level", "log_processor", "visualizer", "vis_backends"),
    *(
        f"{split}_dataloader.{key}"
        for split in ("train", "test")
        for key in ("num_workers", "persistent_workers", "pin_memory", "prefetch_factor")
    ),
)
# What does not change the weights that a training ends with.
_HARMLESS = (
    *_OF_A_PROGRAM,
    *(f"default_hooks.{hook}" for hook in ("checkpoint", "logger", "runtime_info", "timer", "visualization")),
    # evaluation
    *(f"{split}_{part}" for split in ("val", "test") for part in ("cfg", "dataloader", "evaluator", "pipeline")),
    *("tta_model", "tta_pipeline", "train_cfg.val_begin", "train_cfg.val_interval"),
    *(f"model.{key}" for key in KEYS),
)
# What does not change the numbers that an evaluation ends with; its weights count by their content.
_OF_A_TRAINING = (
    *_OF_A_PROGRAM,
    *(
        "default_hooks",
        "load_from",
        "model.checkpoints",
        "model.resident",
        "optim_wrapper",
        "param_scheduler",
        "randomness",
    ),
    *(f"{split}_{part}" for split in ("train", "val") for part in ("cfg", "dataloader", "evaluator", "pipeline")),
)


def training_settings(cfg: Config) -> dict[str, Any]:
    """JSON values of all that decides what a training of `cfg` ends with, by their whole names.

    Weights that it starts from count by their content, wherever they are.
    """
    settings = without(_flat(cfg), _HARMLESS)
    start = cfg.get("load_from")
    if start and Path(start).is_file():
        settings["load_from"] = file_sha256(start)
    return settings


def test_images(cfg: Config) -> list[str]:
    """Paths of the images that a config is evaluated on, in order."""
    return [path for part in base_datasets(DATASETS.build(cfg.test_dataloader.dataset)) for path in image_paths(part)]


def evaluation_settings(cfg: Config, checkpoint: str | None) -> dict[str, Any]:
    """JSON values of all that decides what an evaluation of `cfg` with the weights in `checkpoint` ends with.

    The checkpoints of a teacher are in its config. Images count by their names and sizes.
    """
    checkpoints = cfg.model.get("checkpoints", ()) if checkpoint is None else [checkpoint]
    paths = test_images(cfg)
    cfg = cfg.copy()
    cfg.model = by_content(cfg.model)
    return without(_flat(cfg), _OF_A_TRAINING) | {
        "weights": [file_sha256(path) for path in checkpoints],
        "images": images_digest({path: path for path in paths}),
    }


def _flat(cfg: Config) -> dict[str, Any]:
    return flatten(json.loads(json.dumps(cfg.to_dict(), default=repr)))
