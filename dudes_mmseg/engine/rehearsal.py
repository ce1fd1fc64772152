"""All that a config asks for, built once and released, so that no mistake shows after days of training."""

import re
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmcv
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import HOOKS, LOOPS, MODELS, PARAM_SCHEDULERS
from torch import nn

from uncertainty_core.errors import UserError

from ..cli import ConfigError, check_data
from ..targets.check import base_datasets
from ..targets.transforms import LoadUncertaintyTarget

SPLITS = ("train", "val", "test")
_ADAM_LIKE = 3  # what a checkpoint holds of each weight: itself, and two moments
_UNKNOWN_TYPE = re.compile(r"(\w+) is not in the ([\w: ]+) registry")


def rehearse(cfg: Config, splits: Sequence[str] = SPLITS) -> nn.Module:
    """Build what a training or a test of `cfg` needs and draw the first sample of each split; returns the model.

    Raises ConfigError, which names the part of the config, for whatever fails. Stored targets need not be there yet.
    """
    init_default_scope(cfg.get("default_scope") or "mmseg")
    with _part(cfg, "model"):
        model = MODELS.build(cfg.model)
    for split in splits:
        if cfg.get(f"{split}_dataloader"):
            _rehearse_data(cfg, split, model)
        if cfg.get(f"{split}_evaluator"):
            with _part(cfg, f"{split}_evaluator"):
                Evaluator(cfg[f"{split}_evaluator"])
        with _part(cfg, f"{split}_cfg"):
            _check_loop(cfg.get(f"{split}_cfg") or {})
    for name, hook in _hooks(cfg):
        with _part(cfg, name):
            HOOKS.build(hook)
    if "train" in splits:
        _rehearse_training(cfg, model)
    return model


@contextmanager
def _part(cfg: Config, name: str) -> Iterator[None]:
    """What goes wrong inside is an error of the config's part `name`; its traceback is in the log."""
    try:
        yield
    except UserError as error:
        raise ConfigError(f"{_file(cfg)}: {name}: {error}") from None
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        if found := _UNKNOWN_TYPE.search(text):
            text = f"there is no {found[1]} in {found[2]}: correct its type, or name its module in custom_imports"
        raise ConfigError(f"{_file(cfg)}: {name}: {text}") from None


def _file(cfg: Config) -> str:
    return Path(cfg.filename).name if cfg.filename else "the config"


def _rehearse_data(cfg: Config, split: str, model: nn.Module) -> None:
    """Build a data loader, and compare its first sample with the model."""
    loader = cfg[f"{split}_dataloader"]
    check_data(loader)
    with _part(cfg, f"{split}_dataloader"):
        dataset = Runner.build_dataloader(loader).dataset
        for part in base_datasets(dataset):
            _check_classes(part, model)
            _check_sizes(part)
            transforms = part.pipeline.transforms
            transforms[:] = [step for step in transforms if not isinstance(step, LoadUncertaintyTarget)]
        _check_labels(dataset[0], model)


def _head(model: nn.Module) -> nn.Module | None:
    """The decode head that decides; None of a model that is put together otherwise."""
    head = getattr(model, "decode_head", None)
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _check_classes(dataset: BaseDataset, model: nn.Module) -> None:
    classes, head = dataset.metainfo.get("classes"), _head(model)
    if classes is not None and head is not None and len(classes) != head.num_classes:
        raise ConfigError(
            f"{type(dataset).__name__} has {len(classes)} classes and model.decode_head.num_classes is "
            f"{head.num_classes}: set one to the other"
        )


def _check_sizes(dataset: BaseDataset) -> None:
    """Raise ConfigError if the first image and its labels, before anything resizes both, are not of one size."""
    info = dataset.get_data_info(0)
    image, labels = info.get("img_path"), info.get("seg_map_path")
    if not (image and labels and Path(image).is_file() and Path(labels).suffix == ".png" and Path(labels).is_file()):
        return
    shown = mmcv.imread(image).shape[:2]
    labelled = mmcv.imread(labels, flag="unchanged", backend="pillow").shape[:2]
    if shown != labelled:
        raise ConfigError(
            f"{image} has {shown[1]} x {shown[0]} pixels and its labels {labels} have {labelled[1]} x {labelled[0]}"
        )


def _check_labels(sample: Mapping[str, Any], model: nn.Module) -> None:
    """Raise ConfigError if a sample is labelled with more classes than the model has."""
    head, truth = _head(model), sample.get("data_samples")
    if head is None or truth is None or "gt_sem_seg" not in truth:
        return
    labels = truth.gt_sem_seg.data
    unknown = labels[(labels >= head.num_classes) & (labels != head.ignore_index)]
    if len(unknown):
        raise ConfigError(
            f"{truth.seg_map_path} holds the label {int(unknown[0])}, and model.decode_head.num_classes is "
            f"{head.num_classes}: labels go from 0 to {head.num_classes - 1}, and {head.ignore_index} is void"
        )


def _check_loop(loop: Mapping[str, Any]) -> None:
    if "type" in loop and LOOPS.get(loop["type"]) is None:
        raise ConfigError(f"there is no loop {loop['type']}")


def _hooks(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The hooks of a config, each with its name there."""
    for name, hook in (cfg.get("default_hooks") or {}).items():
        if hook is not None:
            yield f"default_hooks.{name}", hook
    for hook in cfg.get("custom_hooks") or ():
        yield f"custom_hooks, {hook['type']}", hook


def _rehearse_training(cfg: Config, model: nn.Module) -> None:
    """What only a training builds, and the files that it starts from."""
    with _part(cfg, "optim_wrapper"):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = cfg.get("param_scheduler") or ()
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        with _part(cfg, "param_scheduler"):
            settings = {key: value for key, value in scheduler.items() if key != "convert_to_iter_based"}
            PARAM_SCHEDULERS.build(settings | {"optimizer": optimizer})
    for name, path in _weights(cfg.to_dict()):
        if not Path(path).is_file():
            raise ConfigError(f"{_file(cfg)}: {name}: there is no checkpoint {path}")


def _weights(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Local files with weights that a config names, by the whole names of their keys."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if key in ("checkpoint", "load_from", "pretrained") and isinstance(value, str) and "://" not in value:
            yield prefix + key, value
        yield from _weights(value, f"{prefix}{key}.")


def check_disk(folder: Path, needed: int) -> None:
    """Raise ConfigError unless the disk of `folder` has room for `needed` bytes; what is in the folder counts."""
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.is_dir())).free
    if needed - written > free:
        needed, free = (f"{value / 2**30:.1f} GiB" for value in (needed - written, free))
        raise ConfigError(f"{folder} needs at least {needed} for checkpoints and targets, and the disk has {free} free")


def checkpoint_bytes(model: nn.Module) -> int:
    """Of the last checkpoint of a training, with the state of an optimizer such as Adam."""
    return _ADAM_LIKE * sum(weight.numel() * weight.element_size() for weight in model.parameters())


def target_bytes(dataset: BaseDataset, channels: int) -> int:
    """Of the stored targets of a data set, if all of its images are as large as the first."""
    height, width = mmcv.imread(dataset.get_data_info(0)["img_path"]).shape[:2]
    return 2 * channels * height * width * len(dataset)
