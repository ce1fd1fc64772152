"""Are the stored targets those of the data set? Checked before a training begins, not when it meets the first image."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from uncertainty_core import TargetStore, TargetStoreError

from .codec import check_targets
from .contents import PAPERS, TOP_K, Contents
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
        """Raise TargetStoreError, which names the store, and the first image if need be, unless all is there."""
        for dataset in base_datasets(runner.train_dataloader.dataset):
            for transform in dataset.pipeline.transforms:
                if isinstance(transform, LoadUncertaintyTarget):
                    store = TargetStore(transform.store)
                    check_contents(store, runner.cfg.get("model") or {})
                    check_targets(store, image_paths(dataset))


def check_contents(store: TargetStore, model: Mapping[str, Any]) -> None:
    """Raise TargetStoreError unless a store has what the student of this config learns from."""
    wanted = PAPERS if model.get("teacher") else Contents.for_student(model)
    found = Contents.of_store(store)
    if lacking := [name for name in wanted.outputs if name not in found.outputs]:
        raise TargetStoreError(
            f"{store.folder} holds no {' and no '.join(lacking)}, which model.uncertainty_head.outputs ask for: "
            f"generate targets with --outputs {' '.join(wanted.outputs)} into another folder"
        )
    if wanted.top_k and not found.top_k:
        raise TargetStoreError(
            f"{store.folder} holds no probabilities, which model.loss_distillation and the output error learn from: "
            f"generate targets with --top-k {TOP_K} into another folder"
        )
