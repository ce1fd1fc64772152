"""Training the members of an ensemble: the same config with another seed each."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from .training import train_once


def member_config(cfg: Config, number: int) -> Config:
    """The config of one member: its number is its seed, its folder `member_<number>` in the work dir."""
    cfg = cfg.copy()
    cfg.work_dir = str(Path(cfg.work_dir) / f"member_{number}")
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=number)
    return cfg


def train_members(cfg: Config, numbers: Sequence[int]) -> list[Path]:
    """Train members one after the other, those that are not finished; returns their last checkpoints."""
    return [train_once(member_config(cfg, number)) for number in numbers]


def train_members_on(gpus: Sequence[str], numbers: Sequence[int], command: Sequence[str]) -> None:
    """Train one member per GPU at a time, each in a process of its own.

    Args:
        gpus: what CUDA_VISIBLE_DEVICES is set to.
        numbers: of the members.
        command: the arguments of this program that train one member, when `--only <number>` is added.
    """
    waiting, free, running = list(numbers), list(gpus), {}
    failed = []
    while waiting or running:
        while waiting and free:
            number, gpu = waiting.pop(0), free.pop(0)
            process = subprocess.Popen(
                [sys.executable, *command, "--only", str(number)], env=os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
            )
            running[process.pid] = process, number, gpu
        pid, status = os.wait()
        if pid in running:
            _, number, gpu = running.pop(pid)
            free.append(gpu)
            if status:
                failed.append(number)
    if failed:
        raise RuntimeError(f"members {failed} failed, see their logs; start again to go on with them")
