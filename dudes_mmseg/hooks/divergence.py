"""A training that has diverged ends with one sentence: which loss, when, and the key to lower."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from uncertainty_core.errors import divergence


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends a training at its first loss that is not finite, before a checkpoint holds what it made of the weights.

    This package's trainings have it by default.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Raise DivergenceError for the losses of the iteration that are not finite; reading them waits for a GPU."""
        losses = {name: value for name, value in (outputs or {}).items() if "loss" in name}
        broken = [name for name, value in losses.items() if isinstance(value, Tensor) and not value.isfinite().all()]
        if broken:
            rate = (runner.cfg.optim_wrapper.get("optimizer") or {}).get("lr")
            names = [name for name in broken if name != "loss"] or broken  # "loss" is their sum
            bound = ", or bound gradients with optim_wrapper.clip_grad"
            raise divergence(", ".join(names), runner.iter + 1, {"optim_wrapper.optimizer.lr": rate}, bound)
