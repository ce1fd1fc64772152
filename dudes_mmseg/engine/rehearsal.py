"""All that a config asks for, built once and released, so that no mistake shows after days of training."""

import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import Registry, init_default_scope
from mmengine.runner import Runner
from mmseg.registry import HOOKS, LOOPS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from uncertainty_core.errors import UserError

from ..cli import ConfigError, check_data
from ..models.consensus import check_gives_logits
from ..models.segmentor import UncertaintyMixin
from ..targets.check import base_datasets
from ..targets.contents import Contents
from ..targets.transforms import LoadUncertaintyTarget

SPLITS = ("train", "val", "test")
_ADAM_LIKE = 3  # what a checkpoint holds of each weight: itself, and two moments
_UNKNOWN_TYPE = re.compile(r"(\w+) is not in the ([\w: ]+) registry")


class Needs(NamedTuple):
    """Bytes on disk.

    checkpoint: the last one of the training, with the state of an optimizer such as Adam.
    targets: stored ones of the training images, if all are as large as the first.
    """

    checkpoint: int
    targets: int


def rehearse(cfg: Config) -> Needs:
    """Build what a training and a test of `cfg` need, and draw the first sample of each split.

    Raises ConfigError, which names the part of the config that fails. Stored targets need not be there yet.
    """
    init_default_scope(cfg.get("default_scope") or "mmseg")
    with part(cfg, "model"):
        check_gives_logits(cfg.model)
        model = MODELS.build(cfg.model)
    images = []
    for split in SPLITS:
        if cfg.get(f"{split}_dataloader"):
            datasets = _rehearse_data(cfg, split, model)
            images = images or datasets  # of the training
        if cfg.get(f"{split}_evaluator"):
            with part(cfg, f"{split}_evaluator"):
                Evaluator(cfg[f"{split}_evaluator"])
    for name, registry, settings in _declared(cfg):
        with part(cfg, name):
            _check_arguments(registry, settings)
    _rehearse_optimizer(cfg, model)
    for name, path in _weights(cfg.to_dict()):
        if not Path(path).is_file():
            raise ConfigError(f"{_file(cfg)}: {name}: there is no checkpoint {path}")
    is_student = isinstance(model, UncertaintyMixin)
    size = Contents.for_student(cfg.model).bytes_per_pixel(model.out_channels) if is_student else 0
    checkpoint = _ADAM_LIKE * sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return Needs(checkpoint, sum(size * _pixels(dataset) * len(dataset) for dataset in images))


def _pixels(dataset: BaseDataset) -> int:
    """Of the first image."""
    height, width = mmcv.imread(dataset.get_data_info(0)["img_path"]).shape[:2]
    return height * width


@contextmanager
def part(cfg: Config, name: str) -> Iterator[None]:
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


def _rehearse_data(cfg: Config, split: str, model: nn.Module) -> list[BaseDataset]:
    """Build a data loader, and compare its first sample with the model; returns its data sets."""
    loader = cfg[f"{split}_dataloader"]
    check_data(loader)
    with part(cfg, f"{split}_dataloader"):
        dataset = Runner.build_dataloader(loader).dataset
        datasets = list(base_datasets(dataset))
        for found in datasets:
            _check_classes(found, model)
            _check_sizes(found)
            transforms = found.pipeline.transforms
            transforms[:] = [step for step in transforms if not isinstance(step, LoadUncertaintyTarget)]
        _check_labels(dataset[0], model)
    return datasets


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


def _declared(cfg: Config) -> Iterator[tuple[str, Registry, Mapping[str, Any]]]:
    """What only a run can build, or explain: hooks, loops, the optimizer; each with its name in the config."""
    for name, hook in (cfg.get("default_hooks") or {}).items():
        if hook is not None:
            yield f"default_hooks.{name}", HOOKS, hook
    for hook in cfg.get("custom_hooks") or ():
        yield "custom_hooks", HOOKS, hook
    for split in SPLITS:
        loop = cfg.get(f"{split}_cfg") or {}
        if "type" in loop:
            yield f"{split}_cfg", LOOPS, loop
    if "optimizer" in cfg.optim_wrapper:
        yield "optim_wrapper.optimizer", OPTIMIZERS, cfg.optim_wrapper.optimizer


def _check_arguments(registry: Registry, settings: Mapping[str, Any]) -> None:
    """Raise an error if what `settings` declare is unknown, or cannot take its arguments."""
    arguments = dict(settings)
    kind = arguments.pop("type")
    made = registry.get(kind) if isinstance(kind, str) else kind
    if made is None:
        raise ConfigError(f"there is no {kind}: correct its type, or name its module in custom_imports")
    arguments.pop("priority", None)  # read by the runner
    try:
        inspect.signature(made).bind_partial(**arguments)
    except TypeError as error:
        raise ConfigError(f"{kind}: {error}") from None


def _rehearse_optimizer(cfg: Config, model: nn.Module) -> None:
    if "constructor" not in cfg.optim_wrapper and "optimizer" not in cfg.optim_wrapper:
        return  # several of them, each for a part of a model
    with part(cfg, "optim_wrapper"):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = cfg.get("param_scheduler") or ()
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        with part(cfg, "param_scheduler"):
            settings = {key: value for key, value in scheduler.items() if key != "convert_to_iter_based"}
            PARAM_SCHEDULERS.build(settings | {"optimizer": optimizer})


def _weights(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Local files with weights that a config names, by the whole names of their keys."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if key in ("checkpoint", "load_from", "pretrained") and isinstance(value, str) and "://" not in value:
            yield prefix + key, value
        yield from _weights(value, f"{prefix}{key}.")
