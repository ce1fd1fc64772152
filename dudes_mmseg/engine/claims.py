"""What decides the outcome of a training, for the folder that remembers it."""

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config

from uncertainty_core import file_sha256
from uncertainty_core.io.claims import flatten, without

WAY_OUT = "choose another --work-dir, or start over with --overwrite"

# Keys, or whole sections, of a config that do not change the weights that a training ends with.
_HARMLESS = (
    # where and how a program runs
    *("work_dir", "launcher", "resume", "env_cfg", "log_level", "log_processor", "visualizer", "vis_backends"),
    *(f"default_hooks.{hook}" for hook in ("checkpoint", "logger", "runtime_info", "timer", "visualization")),
    *(f"train_dataloader.{key}" for key in ("num_workers", "persistent_workers", "pin_memory", "prefetch_factor")),
    # evaluation
    *(f"{split}_{part}" for split in ("val", "test") for part in ("cfg", "dataloader", "evaluator", "pipeline")),
    *("tta_model", "tta_pipeline", "train_cfg.val_begin", "train_cfg.val_interval"),
)


def training_settings(cfg: Config) -> dict[str, Any]:
    """JSON values of all that decides what a training of `cfg` ends with, by their whole names.

    Weights that it starts from count by their content, wherever they are.
    """
    content = json.loads(json.dumps(cfg.to_dict(), default=repr))
    settings = without(flatten(content), _HARMLESS)
    start = cfg.get("load_from")
    if start and Path(start).is_file():
        settings["load_from"] = file_sha256(start)
    return settings
