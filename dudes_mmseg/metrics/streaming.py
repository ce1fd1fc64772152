"""Metrics of mmengine whose memory does not grow with the number of images, exact under any number of ranks.

mmengine collects one row of results per image and cuts off those of images that its sampler repeated to give every rank
as many. A row of histograms for each image would fill the memory; so here a rank keeps one sum of all images but its
last, and the last one's row by itself: no other can be a repetition.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_dist_info, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.utils import mkdir_or_exist
from torch import Tensor

from uncertainty_core.errors import UserError
from uncertainty_core.io.files import write_text
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.metrics.base import SumMetric

from ..models.consensus import FIELDS
from ..models.maps import image_key, image_name

States = dict[str, SumMetric]
LOCAL = {"sync_on_compute": False}  # ranks are added up in `evaluate`, without the images that were repeated


class StreamingMetric(BaseMetric):
    """Base of the metrics here. Subclasses define what is summed, and what is computed from the sums.

    After `evaluate`, `measured` holds the states of the whole data set, and `rows` what is kept of each image for
    intervals, by its name.

    Args:
        ignore_index: label of void pixels.
        output_dir: also write numbers and curves there, and pictures.
        kwargs: collect_device and prefix, as `BaseMetric`.
    """

    def __init__(self, ignore_index: int = 255, output_dir: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index, self.output_dir = ignore_index, output_dir
        self.measured: States = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self._start()

    def _start(self) -> None:
        self._total: States = {}
        self._last: States = {}
        self._count = 0
        self._rows: dict[str, dict[str, Any]] = {}

    def new_states(self) -> States:
        """Empty sums by name, made with `LOCAL`."""
        raise NotImplementedError

    def add(self, states: States, sample: Mapping[str, Any], label: Tensor) -> None:
        """Add an image: its prediction, and its true classes (H, W)."""
        raise NotImplementedError

    @property
    def row_settings(self) -> dict[str, Any]:
        """What rows mean, as `SegmentedImages` has it."""
        return {}

    def compute(self, states: States) -> dict[str, float]:
        """Values by name."""
        raise NotImplementedError

    def row(self, states: States) -> dict[str, Any]:
        """What to keep of one image, as `SegmentedImages` has it."""
        raise NotImplementedError

    def write(self, states: States, metrics: Mapping[str, float], folder: Path) -> None:
        """Curves and pictures in a folder that exists."""

    @property
    def num_classes(self) -> int:
        """C, of the data set."""
        return len(self.dataset_meta["classes"])

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of predictions, where they are: on a GPU, or not."""
        for sample in data_samples:
            label = true_classes(sample)
            if not self._total:
                self._make_states(label.device)
            self._merge_last()
            try:
                self.add(self._last, sample, label)
            except UserError:
                raise
            except ValueError as error:  # of the core, which knows no images
                raise UserError(f"{image_name(sample)}: {error}") from None
            self._count += 1
            self._rows[image_key(sample)] = self.row(self._last)

    def _make_states(self, device: torch.device | str) -> None:
        self._total, self._last = self.new_states(), self.new_states()
        for state in (*self._total.values(), *self._last.values()):
            state.to(device)

    def _merge_last(self) -> None:
        for name, state in self._last.items():
            self._total[name].merge_state(state)
            state.reset()

    def evaluate(self, size: int) -> dict[str, float]:
        """The values of a data set of `size` images, of which this rank has seen its share."""
        if not self._total:  # a rank without an image
            self._make_states("cpu")
        rank, world_size = get_dist_info()
        if rank + world_size * (self._count - 1) < size:  # else the sampler took an image from the start once more
            self._merge_last()
        for state in self._total.values():
            for values in state.metric_state.values():
                all_reduce(values)
        self.measured = self._total
        self.rows = {name: row for part in all_gather_object(self._rows) for name, row in part.items()}
        self._start()
        metrics = self.compute(self.measured)
        if self.output_dir is not None and is_main_process():
            self._write(metrics)
        return {f"{self.prefix}/{name}" if self.prefix else name: value for name, value in metrics.items()}

    def _write(self, metrics: Mapping[str, float]) -> None:
        mkdir_or_exist(self.output_dir)
        folder = Path(self.output_dir)
        write_text(folder / f"{self.prefix}.json", strict_json(dict(metrics)))
        self.write(self.measured, metrics, folder)

    def compute_metrics(self, results: list) -> dict:
        """Not used: `evaluate` needs no rows."""
        raise NotImplementedError


def true_classes(sample: Mapping[str, Any]) -> Tensor:
    """The labels (H, W) of a prediction, where that is."""
    name = image_name(sample)
    if "gt_sem_seg" not in sample:
        raise UserError(f"{name} has no labels: put LoadAnnotations into the test pipeline")
    label, predicted = (sample[field]["data"].squeeze(0) for field in ("gt_sem_seg", "pred_sem_seg"))
    if label.shape != predicted.shape:
        raise UserError(
            f"{name} has labels of {tuple(label.shape)} pixels for a prediction of {tuple(predicted.shape)}: put "
            "LoadAnnotations behind the transforms that resize the image"
        )
    return label.to(predicted.device)


def predicted_uncertainty(sample: Mapping[str, Any], output: str = "std") -> Tensor:
    """The map (H, W) of one of the uncertainties of a prediction."""
    field = f"pred_{FIELDS[output]}"
    if field not in sample:
        raise UserError(
            f"the prediction for {image_name(sample)} has no {field}: evaluate a DUDESEncoderDecoder or a teacher with "
            f"{output} among its outputs, or leave out the metrics of uncertainty"
        )
    return sample[field]["data"].squeeze(0)
