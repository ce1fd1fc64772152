"""Training and evaluation, as Detectron2's own `lazyconfig_train_net.py` does it, for baselines and students alike."""

import copy
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import AMPTrainer, SimpleTrainer, default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig
from torch import nn

from uncertainty_core import derive_seed, errors
from uncertainty_core.sampling.folds import read_held_out
from uncertainty_core.sampling.randomness import seeded

from ..boxes import BOX_STD
from ..config import ConfigError
from ..convert import is_ddn
from ..convert.lazy import box_nodes, target
from ..data.loader import KeyedTrainLoader, per_process
from ..engine.checkpoint import SafeCheckpointer
from ..engine.divergence import FiniteLosses
from ..engine.progress import ProgressBar, TrackedLoader
from ..engine.trainer import DISTILLED, KeyedRandomness
from ..evaluation.calibration_evaluator import COCOCalibrationEvaluator
from ..teaching.teacher import EnsembleTeacher, MCDropoutTeacher
from .config import dataset_names

# Arguments of `build_detection_train_loader` that `KeyedTrainLoader` knows.
_OF_LOADERS = {"_target_", "dataset", "mapper", "sampler", "total_batch_size", "aspect_ratio_grouping", "num_workers"}


def _made(node: DictConfig, what: str) -> Any:
    """What the call at a node returns; ConfigError where it cannot be made."""
    try:
        return instantiate(node)
    except errors.UserError:
        raise
    except (AssertionError, AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{what} cannot be built: {' '.join(str(error).split())}") from None


def build_network(cfg: DictConfig) -> nn.Module:
    """The model that a config describes, on its device."""
    return _made(cfg.model, "the model").to(cfg.train.device)


def load_weights(cfg: DictConfig, model: nn.Module, path: str, may_lack: str | None = None) -> dict[str, Any]:
    """Load a checkpoint; into a model that is distilled it has to fit wholly. Returns what else is in the file."""
    if not path:
        raise ConfigError("train.init_checkpoint is empty: name the weights of the detector")
    return SafeCheckpointer(model, strict=is_ddn(cfg), may_lack=may_lack).load(path)


def _attach_teacher(cfg: DictConfig, model: nn.Module) -> None:
    """Give the ROI heads their teacher: members of an ensemble, or Monte-Carlo dropout of the weights they have."""
    members = []
    for path in cfg.teacher.weights:
        members.append(build_network(cfg))
        load_weights(cfg, members[-1], path, BOX_STD)
    heads = model.roi_heads
    if members:
        held_out = read_held_out(cfg.teacher.weights) if cfg.teacher.out_of_fold else None
        heads.teacher = EnsembleTeacher(members, model.backbone, held_out)
    else:
        heads.teacher = MCDropoutTeacher(heads, cfg.teacher.mc_samples, seed=0)


def load_detector(cfg: DictConfig, model: nn.Module, path: str) -> None:
    """Load the weights for an evaluation, and the members where the config averages them."""
    load_weights(cfg, model, path)
    if is_ddn(cfg) and cfg.model.roi_heads.test.ensemble:
        _attach_teacher(cfg, model)


def evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """What `dataloader.evaluator` finds on `dataloader.test`, and the calibration of boxes if that is one data set."""
    names = dataset_names(cfg, "test")
    evaluators = []
    declared = cfg.dataloader.get("evaluator") or []
    if isinstance(declared, ListConfig):  # of PanopticFPN, of which boxes and masks are measured
        declared = [node for node in declared if target(node) is COCOEvaluator]
    else:
        declared = [declared]
    for node in map(copy.deepcopy, declared):
        if target(node) is COCOEvaluator:
            node.use_fast_impl = False  # the fast one needs Detectron2's C++ sources
        evaluators.append(_made(node, "dataloader.evaluator"))
    if len(names) == 1:
        folder = Path(cfg.train.output_dir) / "inference" / names[0]
        tasks = ("calibration",) if evaluators else ("bbox", "calibration")
        evaluators.append(COCOCalibrationEvaluator(names[0], folder, tasks=tasks))
    loader = TrackedLoader(_made(cfg.dataloader.test, "dataloader.test"), f"evaluate {', '.join(names)}")
    return inference_on_dataset(model, loader, DatasetEvaluators(evaluators)) or {}


def _train_loader(cfg: DictConfig) -> Any:
    """`dataloader.train`; the loaders of Detectron2 itself with an order that depends on the seed alone."""
    node, seed = cfg.dataloader.train, cfg.train.seed
    if target(node) is not build_detection_train_loader or node.keys() - _OF_LOADERS:
        return _made(node, "dataloader.train")
    seed = seed if seed >= 0 else comm.shared_random_seed()
    with seeded(derive_seed("order", seed)):  # from which samplers without a seed take theirs
        parts = {name: _made(value, f"dataloader.train.{name}") for name, value in node.items() if name != "_target_"}
        sampler = parts.get("sampler") or TrainingSampler(len(parts["dataset"]))
    return KeyedTrainLoader(
        parts["dataset"],
        sampler,
        parts["mapper"],
        per_process(parts["total_batch_size"]),
        seed,
        parts.get("aspect_ratio_grouping", True),
        parts.get("num_workers", 0),
    )


def _optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    declared = copy.deepcopy(cfg).optimizer  # of a copy, since it gets to hold the model
    declared.params.model = model
    optimizer = _made(declared, "the optimizer")
    if cfg.train.clip_gradients is not None:
        optimizer.register_step_pre_hook(partial(_clip, cfg.train.clip_gradients))
    return optimizer


def _clip(norm: float, optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Each parameter by itself, as Detectron2 clips."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_(parameter, norm)


def _divergence(cfg: DictConfig, iteration: int, what: str) -> errors.DivergenceError:
    """The error for `what`, such as "loss_cls, loss_ddn", which is infinite or NaN."""
    to_lower = {"optimizer.lr": cfg.optimizer.get("lr")}
    if "loss_ddn" in what:
        name, predictor = next(iter(box_nodes(cfg.model.roi_heads, "box_predictor").items()))
        to_lower[f"model.roi_heads.{name}.dd_weight"] = predictor.dd_weight
    clip = ", or set train.clip_gradients to 10" if cfg.train.clip_gradients is None else ""
    return errors.divergence(what, iteration, to_lower, clip)


def train(cfg: DictConfig, resume: bool = False) -> dict[str, Any]:
    """Train, or distil, what `cfg` describes in `train.output_dir`; returns the results of the last evaluation.

    With a `train.seed` of at least 0 and a loader of Detectron2's own, a training that is interrupted and resumed
    ends, on a CPU, with the weights of an undisturbed one bit for bit.
    """
    model, distils, settings = build_network(cfg), is_ddn(cfg), cfg.train
    if distils:
        if cfg.model.roi_heads.test.ensemble:
            raise ConfigError("model.roi_heads.test.ensemble is for evaluations: a training measures what it trains")
        # the teacher is made of these weights, also when the student resumes
        load_weights(cfg, model, settings.init_checkpoint, BOX_STD)
        if cfg.teacher.source == "online":
            _attach_teacher(cfg, model)
    optimizer, loader = _optimizer(cfg, model), _train_loader(cfg)
    wrapped = create_ddp_model(model, **settings.get("ddp", {}))
    trainer = (AMPTrainer if settings.amp.enabled else SimpleTrainer)(wrapped, loader, optimizer)
    states = {"optimizer": optimizer} | ({"grad_scaler": trainer.grad_scaler} if settings.amp.enabled else {})
    checkpointer = SafeCheckpointer(
        model,
        settings.output_dir,
        strict=distils,
        may_lack=BOX_STD,
        notes={DISTILLED: True} if distils else {},
        **states,
    )
    results: dict[str, Any] = {}

    def measure() -> dict[str, Any]:
        results.update(evaluate(cfg, model))
        return results

    explained = partial(_divergence, cfg)
    trainer.register_hooks(
        [
            KeyedRandomness(settings.seed) if settings.seed >= 0 else None,
            FiniteLosses(explained, wrapped),
            ProgressBar(f"train {os.path.basename(settings.output_dir)}"),
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=_made(cfg.lr_multiplier, "lr_multiplier")),
            hooks.PeriodicCheckpointer(checkpointer, **settings.checkpointer) if comm.is_main_process() else None,
            hooks.EvalHook(settings.eval_period, measure),
            hooks.PeriodicWriter(default_writers(settings.output_dir, settings.max_iter), period=settings.log_period)
            if comm.is_main_process()
            else None,
        ]
    )
    start = 0
    if resume and checkpointer.has_checkpoint():
        start = checkpointer.resume_or_load("", resume=True)["iteration"] + 1
    elif not distils:
        checkpointer.resume_or_load(settings.init_checkpoint, resume=False)
    if isinstance(loader, KeyedTrainLoader):
        loader.start = start
    try:
        trainer.train(start, settings.max_iter)
    except FloatingPointError:  # of the proposal generator
        raise explained(trainer.iter, "the proposals") from None
    return results
