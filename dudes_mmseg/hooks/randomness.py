"""Trainings that can be killed at any moment and end, when started again, as if nothing had happened."""

import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from uncertainty_core import derive_seed
from uncertainty_core.sampling.randomness import seed_generators


def _checkpoints(work_dir: str | Path) -> list[Path]:
    """What mmengine has written, or begun to write; of those that were cut off, the end is missing, and so no zip."""
    paths = [path for kind in ("iter", "epoch") for path in Path(work_dir).glob(f"{kind}_*.pth")]
    return [path for path in paths if path.stem.split("_")[1].isdecimal()]


def remove_cut_off_checkpoints(work_dir: str | Path) -> None:
    """Remove those that are not whole, for example because the disk was full."""
    for path in _checkpoints(work_dir):
        if not zipfile.is_zipfile(path):
            path.unlink()


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest whole checkpoint that mmengine left in `work_dir`; None where there is none.

    mmengine's own note `last_checkpoint` may name a file that was removed or cut off when the run was killed.
    """
    whole = [path for path in _checkpoints(work_dir) if zipfile.is_zipfile(path)]
    return max(whole, key=lambda path: int(path.stem.split("_")[1]), default=None)


def _with_call(items: Iterator[Any], number: int, call: Callable[[], None]) -> Iterator[Any]:
    """The items of an endless iterator; `call` is called once, when `number` of them were taken."""
    for _ in range(number):
        yield next(items)
    call()
    yield from items


@HOOKS.register_module()
class KeyedRandomnessHook(Hook):
    """Makes all that is drawn in a training iteration a function of (seed, rank, iteration).

    So a resumed training draws what the undisturbed one would have: the same dropout, and without worker processes the
    same augmentation. With workers, whose generators mmengine starts anew, images come in the same order but are
    augmented otherwise.

    Args:
        seed: None for that of the runner.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def _key(self, runner: Runner, iteration: int) -> int:
        return derive_seed("iteration", runner.seed if self.seed is None else self.seed, get_rank(), iteration)

    def _before_data(self, runner: Runner, iteration: int) -> None:
        seed_generators(self._key(runner, iteration))

    def before_train(self, runner: Runner) -> None:
        """For the data of the first iteration, or of the first after a resumption."""
        self._before_data(runner, runner.iter)
        batches = getattr(runner.train_loop, "dataloader_iterator", None)
        if runner.iter and batches is not None and not hasattr(batches, "skip_iter"):
            # mmengine 0.10.7 loads and throws away, from now on, what was trained on before the interruption
            seed = partial(self._before_data, runner, runner.iter)
            runner.train_loop.dataloader_iterator = _with_call(batches, runner.iter, seed)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """For the network: loading data may have drawn from torch's generator."""
        torch.manual_seed(self._key(runner, runner.iter))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """For the data of the next iteration: the loop counts up after this."""
        self._before_data(runner, runner.iter + 1)

    def after_val(self, runner: Runner) -> None:
        """A validation between two iterations leaves no trace."""
        self._before_data(runner, runner.iter)
