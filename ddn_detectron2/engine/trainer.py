"""Training and evaluation, as Detectron2's own `tools/train_net.py` does it, for baselines and students alike."""

import os
import weakref
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators
from detectron2.modeling import build_model
from detectron2.utils import comm

from uncertainty_core import derive_seed
from uncertainty_core.sampling.folds import held_out, image_key
from uncertainty_core.sampling.randomness import seed_generators

from ..boxes import BOX_STD
from ..config import ConfigError
from ..convert import is_ddn
from ..data.loader import KeyedTrainLoader
from ..data.unlabelled import unlabelled_dicts
from ..evaluation.calibration_evaluator import COCOCalibrationEvaluator
from ..modeling.rcnn import DDNRCNN
from ..teaching.mapper import DDNDatasetMapper
from ..teaching.store import attach_teacher, check_store
from .checkpoint import SafeCheckpointer
from .divergence import FiniteLosses, divergence
from .progress import ProgressBar, TrackedLoader

DISTILLED = "distilled"  # a note in the checkpoints of students


def build_network(cfg: CfgNode) -> torch.nn.Module:
    """The model that a config describes; ConfigError where it names what Detectron2 does not know."""
    try:
        return build_model(cfg)
    except (AssertionError, KeyError, TypeError) as error:
        raise ConfigError(f"the model cannot be built: {' '.join(str(error).split())}") from None


def load_weights(cfg: CfgNode, model: torch.nn.Module, path: str, may_lack: str | None = None) -> dict[str, Any]:
    """Load a checkpoint; into a model that is distilled it has to fit wholly. Returns what else is in the file.

    Args:
        cfg: of the model.
        model: gets the weights.
        path: of the checkpoint.
        may_lack: see `SafeCheckpointer`.
    """
    if not path:
        raise ConfigError("MODEL.WEIGHTS is empty: name the weights of the detector")
    return SafeCheckpointer(model, strict=is_ddn(cfg), may_lack=may_lack).load(path)


def build_with_teacher(cfg: CfgNode, model: DDNRCNN) -> DDNRCNN:
    """`model` with the weights in `MODEL.WEIGHTS` and the teacher that the config asks for."""
    if not cfg.MODEL.WEIGHTS:
        raise ConfigError("MODEL.WEIGHTS must be the detector to distil: train one with the baseline_* configs first")
    load_weights(cfg, model, cfg.MODEL.WEIGHTS, BOX_STD)
    if cfg.MODEL.DDN.TARGETS.SOURCE != "none":
        attach_teacher(cfg, model, load_members(cfg))
    return model


def load_members(cfg: CfgNode) -> list[DDNRCNN]:
    """The detectors in `TEACHER.WEIGHTS`."""
    members = []
    for path in cfg.MODEL.DDN.TEACHER.WEIGHTS:
        members.append(build_network(cfg))
        load_weights(cfg, members[-1], path, BOX_STD)
    return members


def load_detector(cfg: CfgNode, model: torch.nn.Module, path: str) -> None:
    """`load_weights` for an evaluation, with the members where the config averages them."""
    load_weights(cfg, model, path)
    if is_ddn(cfg) and cfg.MODEL.DDN.TEST.ENSEMBLE:
        attach_teacher(cfg, model, load_members(cfg))


def box_head_weights(model: DDNRCNN) -> dict[str, torch.Tensor]:
    """A copy of the weights of box heads and predictors; of `Res5ROIHeads` those of the predictor."""
    parts = ("roi_heads.box_head.", "roi_heads.box_predictor.")
    return {name: weights.clone() for name, weights in model.state_dict().items() if name.startswith(parts)}


def training_dicts(cfg: CfgNode) -> list[dict]:
    """The images of `DATASETS.TRAIN` that are trained on, in the order they have there."""
    return [image for image, left_out in _labelled(cfg) if not left_out]


def left_out_images(cfg: CfgNode) -> list[str]:
    """Keys of the images of `DATASETS.TRAIN` that `LEAVE_OUT` keeps from a member."""
    return [image_key(image["file_name"]) for image, left_out in _labelled(cfg) if left_out]


def _labelled(cfg: CfgNode) -> list[tuple[dict, bool]]:
    """The images of `DATASETS.TRAIN`, each with whether it is left out."""
    heads = cfg.MODEL.ROI_KEYPOINT_HEAD
    images = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=heads.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    fold = cfg.MODEL.DDN.LEAVE_OUT if "DDN" in cfg.MODEL else ()
    if len(fold) not in (0, 2):
        raise ConfigError(f"MODEL.DDN.LEAVE_OUT must be (k, K), or () for none, got {fold}")
    left_out = held_out([image_key(image["file_name"]) for image in images], *fold) if fold else [False] * len(images)
    return list(zip(images, left_out, strict=True))


def reads_store(cfg: CfgNode) -> bool:
    """Whether targets come with the data."""
    return is_ddn(cfg) and cfg.MODEL.DDN.TARGETS.SOURCE == "store"


class KeyedRandomness(HookBase):
    """Makes all that a step draws a function of (seed, rank, iteration), as that of an undisturbed training is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self):
        """Sampled proposals, dropout, the share of boxes that the teacher is asked about."""
        seed_generators(derive_seed("iteration", self.seed, comm.get_rank(), self.trainer.iter))


class DDNTrainer(DefaultTrainer):
    """`DefaultTrainer` that trains a plain detector, or distils a teacher into a `DDNRCNN`.

    With a `cfg.SEED` of at least 0, a training that is interrupted and resumed ends, on a CPU, with the weights of an
    undisturbed one bit for bit, with any number of loader workers.
    """

    def build_hooks(self):
        """As `DefaultTrainer`; the last thing that its constructor does, and the first that uses the checkpointer."""
        state = {"trainer": weakref.proxy(self)}
        if "_trainer" not in self.state_dict():  # Detectron2 0.5 leaves the optimizer out
            state["optimizer"] = self._trainer.optimizer
        distils = is_ddn(self.cfg)
        self.checkpointer = SafeCheckpointer(
            self._trainer.model,
            self.cfg.OUTPUT_DIR,
            strict=distils,
            may_lack=BOX_STD,
            notes={DISTILLED: True} if distils else {},
            **state,
        )
        keyed = [KeyedRandomness(self.cfg.SEED)] if self.cfg.SEED >= 0 else []
        finite = FiniteLosses(partial(divergence, self.cfg), self._trainer.model)
        bar = ProgressBar(f"train {os.path.basename(self.cfg.OUTPUT_DIR)}")
        return [*keyed, finite, bar, *super().build_hooks()]

    def resume_or_load(self, resume: bool = True) -> None:
        """As `DefaultTrainer`; the teacher is always made of `MODEL.WEIGHTS`, also when the student resumes."""
        if is_ddn(self.cfg):
            model = self.checkpointer.model
            if self.cfg.MODEL.DDN.TEST.ENSEMBLE:
                raise ConfigError("MODEL.DDN.TEST.ENSEMBLE is for evaluations: a training measures what it trains")
            fresh = box_head_weights(model) if self.cfg.MODEL.DDN.FRESH_HEAD else {}
            build_with_teacher(self.cfg, model)
            if reads_store(self.cfg):
                check_store(self.cfg, model, training_dicts(self.cfg))
                model.roi_heads.teacher = None
            model.train()
        super().resume_or_load(resume)
        if is_ddn(self.cfg) and not (resume and self.checkpointer.has_checkpoint()):
            model.load_state_dict(model.state_dict() | fresh)
        self._trainer.data_loader.start = self.start_iter

    def run_step(self) -> None:
        """As `DefaultTrainer`; what its proposal generator finds not to be finite is a divergence as well."""
        try:
            super().run_step()
        except FloatingPointError:
            raise divergence(self.cfg, self.iter, "the proposals") from None

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """As `DefaultTrainer`; see `build_network`."""
        return build_network(cfg)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> KeyedTrainLoader:
        """Images with stored targets, if there are any, and those without labels."""
        mapper = DDNDatasetMapper(cfg, is_train=True) if reads_store(cfg) else None
        unlabelled = unlabelled_dicts(cfg.MODEL.DDN.UNLABELLED) if is_ddn(cfg) else []
        return KeyedTrainLoader.from_config(cfg, training_dicts(cfg) + unlabelled, mapper)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> TrackedLoader:
        """As `DefaultTrainer`, with a progress bar."""
        return TrackedLoader(super().build_test_loader(cfg, dataset_name), f"evaluate {dataset_name}")

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        """AP, AR and calibration of boxes; AP of masks and keypoints where the model has them."""
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        evaluators: list[DatasetEvaluator] = [COCOCalibrationEvaluator(dataset_name, output_dir=folder)]
        tasks = [task for task, on in (("segm", cfg.MODEL.MASK_ON), ("keypoints", cfg.MODEL.KEYPOINT_ON)) if on]
        if tasks:
            evaluators.append(COCOEvaluator(dataset_name, tuple(tasks), output_dir=folder, use_fast_impl=False))
        return DatasetEvaluators(evaluators)

    def train(self) -> OrderedDict[str, Any] | None:
        """The results of the last evaluation."""
        super().train()
        return getattr(self, "_last_eval_results", None)
