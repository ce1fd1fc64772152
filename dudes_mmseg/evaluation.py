"""Evaluating a segmentor from a config."""

import json
import math
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from .setup import ConfigError, check_data


def use_test_time_augmentation(cfg: Config) -> None:
    """What mmsegmentation's `--tta` does: the config's `tta_pipeline`, merged by its `tta_model`."""
    for key in ("tta_pipeline", "tta_model"):
        if key not in cfg:
            raise ConfigError(f"--tta needs {key} in the config")
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model


def write_predictions(cfg: Config, folder: str) -> None:
    """Let the IoUMetric among the test evaluators write predicted classes as PNG."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    for evaluator in evaluators:
        if evaluator.type in ("IoUMetric", "CityscapesMetric"):
            evaluator.output_dir = folder
            return
    raise ConfigError("--out needs an IoUMetric or CityscapesMetric in test_evaluator")


def evaluate(cfg: Config, checkpoint: str | None = None) -> dict[str, float]:
    """Run the test loop of `cfg`; the metrics are also written to `metrics.json` in its work dir."""
    check_data(cfg.test_dataloader)
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise ConfigError(f"there is no checkpoint {checkpoint}")
    cfg = cfg.copy()
    cfg.load_from, cfg.resume = checkpoint, False
    metrics = {name: float(value) for name, value in Runner.from_cfg(cfg).test().items()}
    if is_main_process():
        strict = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        path = Path(cfg.work_dir) / "metrics.json"
        path.write_text(json.dumps(strict, indent=2) + "\n", encoding="utf-8")
    return metrics
