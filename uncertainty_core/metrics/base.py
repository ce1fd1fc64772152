"""What all metrics here are built on: a `torchmetrics.Metric` whose states are int64 sums."""

import json
from typing import Any

import torch
from torchmetrics import Metric


class SumMetric(Metric):
    """States that add up exactly over batches, shards and ranks, and never mix with those of other settings.

    Args:
        settings: JSON values of all that decides what the sums mean.
        kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(self, settings: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # A state without numbers. Its name tells metrics of different settings apart: MetricCollection lets those with
        # equal states share them from the first batch on, and merge_state asks for nothing but equal names.
        self.add_sum(f"settings {json.dumps(settings)}", 0)

    def add_sum(self, name: str, *shape: int) -> None:
        """A state of zeros, added up over ranks."""
        self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and compute its own value; a refused batch changes nothing (torchmetrics' resets the state)."""
        batch = self.clone()
        batch.reset()
        batch._to_sync = self.dist_sync_on_step
        batch.update(*args, **kwargs)
        value = batch.compute()
        self._reduce_states(batch.metric_state)
        self._update_count += 1
        self._computed = None
        return value

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the state of another metric of the same settings."""
        state = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        if state.keys() != self.metric_state.keys():
            raise ValueError("metrics of different settings cannot be merged")
        super().merge_state(incoming_state)
        self._update_count += 1  # or torchmetrics would warn that there is nothing to compute from
        self._computed = None  # torchmetrics would go on answering with what it computed before
