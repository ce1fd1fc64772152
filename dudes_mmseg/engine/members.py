"""Training the members of an ensemble: the same config with another seed each."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from uncertainty_core.cli import echo, progress
from uncertainty_core.errors import UserError

from .claims import training_settings
from .training import duration, train_once


def member_config(cfg: Config, number: int) -> Config:
    """The config of one member: its number is its seed, its folder `member_<number>` in the work dir."""
    cfg = cfg.copy()
    cfg.work_dir = str(Path(cfg.work_dir) / f"member_{number}")
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=number)
    return cfg


def member_claims(cfg: Config, numbers: Sequence[int]) -> dict[Path, dict[str, Any]]:
    """The folders of members, each with what decides its outcome; see `check_claims`."""
    configs = [member_config(cfg, number) for number in numbers]
    return {Path(member.work_dir): training_settings(member) for member in configs}


def train_members(cfg: Config, numbers: Sequence[int], step: Callable[[str], None] = echo) -> list[Path]:
    """Train members one after the other, those that are not finished; returns their last checkpoints."""
    return [train_once(member_config(cfg, number), step) for number in numbers]


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
    return Path(member_config(cfg, number).work_dir) / "log.txt"


def _start(command: Sequence[str], gpu: str, log: Path) -> subprocess.Popen:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    with open(log, "ab") as file:
        return subprocess.Popen([sys.executable, *command], env=environment, stdout=file, stderr=subprocess.STDOUT)
