"""Training from a config, in steps that can be repeated: what is finished stays, what was interrupted goes on."""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from uncertainty_core.cli import echo
from uncertainty_core.errors import UserError
from uncertainty_core.io.claims import check_claim, claim

from ..cli import ConfigError, check_data
from ..hooks.divergence import FiniteLossHook
from ..hooks.progress import ProgressHook
from ..hooks.randomness import latest_checkpoint, remove_cut_off_checkpoints
from .claims import WAY_OUT, training_settings
from .ranks import prepare_ranks

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def final_checkpoint(cfg: Config) -> Path:
    """Where a finished training of `cfg` has its last checkpoint."""
    loop = cfg.train_cfg
    name = f"epoch_{loop.max_epochs}.pth" if "max_epochs" in loop else f"iter_{loop.max_iters}.pth"
    return Path(cfg.work_dir) / name


def use_mixed_precision(cfg: Config) -> None:
    """What mmsegmentation's `--amp` does."""
    wrapper = cfg.optim_wrapper
    if wrapper.type not in ("OptimWrapper", "AmpOptimWrapper"):
        raise ConfigError(f"--amp needs optim_wrapper.type to be OptimWrapper, not {wrapper.type}")
    wrapper.type, wrapper.loss_scale = "AmpOptimWrapper", "dynamic"


def train(cfg: Config, resume: bool = False, step: Callable[[str], None] = echo) -> Path:
    """Train what `cfg` describes in `cfg.work_dir`; returns the path of the last checkpoint.

    With `resume` it goes on from the newest whole checkpoint there; where there is none, it starts. `step` announces
    the training.
    """
    check_data(cfg.train_dataloader)
    check_data(cfg.get("val_dataloader"))
    step(f"{Path(cfg.work_dir).name}: {duration(cfg)}")
    cfg = cfg.copy()
    prepare_ranks(cfg)
    checkpoint = latest_checkpoint(cfg.work_dir) if resume else None
    cfg.resume = checkpoint is not None
    if checkpoint is not None:
        cfg.load_from = str(checkpoint)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    for hook in (ProgressHook(), FiniteLossHook()):
        runner.register_hook(hook)
    try:
        runner.train()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        remove_cut_off_checkpoints(cfg.work_dir)
        raise UserError(
            f"{cfg.work_dir} cannot take another checkpoint: {error.strerror}; make room and resume the training"
        ) from None
    return final_checkpoint(cfg)


def duration(cfg: Config) -> str:
    """Of a training: "400 iterations" or "200 epochs"."""
    loop = cfg.train_cfg
    return f"{loop.max_epochs} epochs" if "max_epochs" in loop else f"{loop.max_iters} iterations"


def train_once(cfg: Config, step: Callable[[str], None] = echo, settings: Mapping[str, Any] | None = None) -> Path:
    """`train` with `resume`, unless it is finished. A folder that other settings have trained in is refused.

    Args:
        cfg: of the training.
        step: announces it.
        settings: all that decides its outcome, if that is more than `training_settings`.
    """
    settings = training_settings(cfg) if settings is None else settings
    check_claim(cfg.work_dir, settings, WAY_OUT)
    final = final_checkpoint(cfg)
    if latest_checkpoint(cfg.work_dir) != final:
        claim(cfg.work_dir, settings)
        return train(cfg, resume=True, step=step)
    step(f"{Path(cfg.work_dir).name}: trained before")
    return final
