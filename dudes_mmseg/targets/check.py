"""Are the stored targets those of the data set? Checked before a training begins, not when it meets the first image."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from uncertainty_core import TargetStore

from .codec import check_targets
from .transforms import LoadUncertaintyTarget


def base_datasets(dataset: Any) -> Iterator[BaseDataset]:
    """The data sets that hold images, inside whatever wraps them: repeated, concatenated, balanced or mixed."""
    if hasattr(dataset, "datasets"):
        for part in dataset.datasets:
            yield from base_datasets(part)
    elif hasattr(dataset, "dataset"):
        yield from base_datasets(dataset.dataset)
    else:
        yield dataset


def image_paths(dataset: BaseDataset) -> list[str]:
    """The paths of its images in order."""
    return [dataset.get_data_info(index)["img_path"] for index in range(len(dataset))]


@HOOKS.register_module()
class CheckTargetsHook(Hook):
    """Checks, before a training starts, that every `LoadUncertaintyTarget` in it will find what it needs."""

    def before_train(self, runner: Runner) -> None:
        """Raise TargetStoreError, which names the store and the first image, unless all is there."""
        for dataset in base_datasets(runner.train_dataloader.dataset):
            for transform in dataset.pipeline.transforms:
                if isinstance(transform, LoadUncertaintyTarget):
                    check_targets(TargetStore(transform.store), image_paths(dataset))
