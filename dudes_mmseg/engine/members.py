"""Training the members of an ensemble: the same config with another seed each."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from uncertainty_core.cli import echo, progress
from uncertainty_core.errors import UserError
from uncertainty_core.sampling.folds import write_held_out

from .claims import training_settings
from .folds import leave_out
from .training import duration, train_once


class Member(NamedTuple):
    """config: of its training; held_out: keys of the training images that it never sees, None without folds."""

    config: Config
    held_out: list[str] | None


def make_member(cfg: Config, number: int, folds: int = 0) -> Member:
    """One of an ensemble: its number is its seed, its folder `member_<number>` in the work dir.

    Args:
        cfg: of the ensemble.
        number: of the member.
        folds: of which it leaves one out; 0 for a member that sees all images.
    """
    cfg = cfg.copy()
    cfg.work_dir = str(Path(cfg.work_dir) / f"member_{number}")
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=number)
    return Member(cfg, leave_out(cfg, number % folds, folds) if folds else None)


def member_claims(cfg: Config, numbers: Sequence[int], folds: int = 0) -> dict[Path, dict[str, Any]]:
    """The folders of members, each with what decides its outcome; see `check_claims`."""
    configs = [make_member(cfg, number, folds).config for number in numbers]
    return {Path(member.work_dir): training_settings(member) for member in configs}


def train_members(
    cfg: Config, numbers: Sequence[int], step: Callable[[str], None] = echo, folds: int = 0
) -> list[Path]:
    """Train members one after the other, those that are not finished; returns their last checkpoints."""
    trained = []
    for number in numbers:
        member = make_member(cfg, number, folds)
        trained.append(train_once(member.config, step))
        if member.held_out is not None:
            write_held_out(trained[-1].parent, member.held_out, folds)
    return trained


def train_members_on(gpus: Sequence[str], cfg: Config, numbers: Sequence[int], command: Sequence[str]) -> None:
    """Train one member per GPU at a time, each in a process of its own, which has its log in the member's folder.

    Args:
        gpus: what CUDA_VISIBLE_DEVICES is set to.
        cfg: of the ensemble.
        numbers: of the members.
        command: the arguments of Python that train one member, when `--only <number>` is added.
    """
    waiting, free, running = list(numbers), list(gpus), {}
    failed = []
    echo(f"{len(waiting)} members on {len(free)} GPUs: {duration(cfg)} each")
    try:
        with progress(len(waiting), "ensemble", "member") as bar:
            while waiting or running:
                while waiting and free:
                    number, gpu = waiting.pop(0), free.pop(0)
                    process = _start([*command, "--only", str(number), "--verbose"], gpu, _log(cfg, number))
                    running[process.pid] = process, number, gpu
                pid, status = os.wait()
                if pid in running:
                    _, number, gpu = running.pop(pid)
                    free.append(gpu)
                    bar.update()
                    if status:
                        failed.append(number)
    finally:  # nobody trains on after an interrupt
        for process, *_ in running.values():
            process.terminate()
            process.wait()
    if failed:
        logs = ", ".join(str(_log(cfg, number)) for number in sorted(failed))
        raise UserError(f"{len(failed)} members failed, see {logs}; the same command goes on with them")


def _log(cfg: Config, number: int) -> Path:
    return Path(make_member(cfg, number).config.work_dir) / "log.txt"


def _start(command: Sequence[str], gpu: str, log: Path) -> subprocess.Popen:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    with open(log, "ab") as file:
        return subprocess.Popen([sys.executable, *command], env=environment, stdout=file, stderr=subprocess.STDOUT)
