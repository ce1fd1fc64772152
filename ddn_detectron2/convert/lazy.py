"""LazyConfigs: the same conversions, where a model is a tree of calls with explicit arguments.

In the distilled form the calls name this package's classes, and have their arguments. `teacher` stands beside `model`:

    source: "online", or "none" for labels alone.
    mc_samples: number of stochastic passes.
    weights: checkpoints of a deep ensemble, in the place of Monte-Carlo dropout.
"""

import copy
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.utils.registry import locate
from omegaconf import DictConfig

from ..config import FREEZABLE, ConfigError, box_calibrator_for, calibrator_for, default_settings, positions_among
from ..modeling import (
    DDNRCNN,
    DDNCascadeROIHeads,
    DDNOutputLayers,
    DDNPanopticFPN,
    DDNRes5ROIHeads,
    DDNStandardROIHeads,
    DropoutFastRCNNConvFCHead,
)
from .yacs import is_ddn, to_ddn, to_plain

_MODELS = {GeneralizedRCNN: DDNRCNN, PanopticFPN: DDNPanopticFPN}
_HEADS = {
    Res5ROIHeads: DDNRes5ROIHeads,
    StandardROIHeads: DDNStandardROIHeads,
    CascadeROIHeads: DDNCascadeROIHeads,
}
_BOX_HEADS = {FastRCNNConvFCHead: DropoutFastRCNNConvFCHead}
_PREDICTORS = {FastRCNNOutputLayers: DDNOutputLayers}
# Arguments that plain Detectron2's classes do not have.
_OWN = {
    DDNRCNN: ("freeze",),
    DDNPanopticFPN: ("freeze",),
    DDNRes5ROIHeads: ("targets", "test", "dropout_rate", "dropout_after"),
    DDNStandardROIHeads: ("targets", "test"),
    DDNCascadeROIHeads: ("targets", "test"),
    DropoutFastRCNNConvFCHead: ("dropout_rate", "dropout_after"),
    DDNOutputLayers: ("loss", "dd_weight", "match", "dropout_rate", "box_std", "box_std_loss"),
}
# omegaconf cannot hold data classes themselves
_SETTINGS = "ddn_detectron2.modeling.roi_heads"


def target(node: DictConfig) -> Any:
    """What a node calls."""
    called = node._target_
    return locate(called) if isinstance(called, str) else called


def box_nodes(heads: DictConfig, part: str) -> dict[str, DictConfig]:
    """The nodes of "box_head" or "box_predictor" by their names in the ROI heads, one or that of each cascade stage."""
    if part in heads:
        return {part: heads[part]}
    return {f"{part}s[{stage}]": node for stage, node in enumerate(heads.get(f"{part}s", []))}


@is_ddn.register
def _(cfg: DictConfig) -> bool:
    return target(cfg.model) in _MODELS.values()


@to_ddn.register
def _(cfg: DictConfig) -> DictConfig:
    cfg = copy.deepcopy(cfg)
    if is_ddn(cfg):
        return cfg
    settings, heads = default_settings().MODEL.DDN, cfg.model.get("roi_heads", {})
    _replace(cfg.model, "model", _MODELS)
    _replace(heads, "model.roi_heads", _HEADS)
    res5 = target(heads) is DDNRes5ROIHeads
    box_heads = {} if res5 else box_nodes(heads, "box_head")
    hidden = ("block1", "block2", "block3") if res5 else _hidden_layers(next(iter(box_heads.values())))
    positions = positions_among(hidden, res5, settings.DROPOUT.POSITIONS)
    dropout = {"dropout_rate": settings.DROPOUT.RATE, "dropout_after": [p for p in positions if p != "predictor"]}
    # the mask head stands on res5, which changes, and has to follow
    cfg.model.freeze = [part for part in settings.FREEZE if not (res5 and part == "mask_head")]
    heads.targets = L(f"{_SETTINGS}.TargetSettings")(
        match=settings.TARGETS.MATCH,
        iou_threshold=settings.TARGETS.IOU,
        score_threshold=settings.TARGETS.SCORE_THRESH,
        average=settings.TARGETS.AVERAGE,
        share=settings.TARGETS.SHARE or (0.5 if res5 else 1.0),
    )
    heads.test = L(f"{_SETTINGS}.InferenceSettings")(
        mc_samples=settings.TEST.MC_SAMPLES,
        ensemble=settings.TEST.ENSEMBLE,
        seed=settings.TEST.SEED,
        class_probs=settings.TEST.CLASS_PROBS,
        calibrator=L(calibrator_for)(
            path=settings.TEST.CALIBRATOR, num_classes="${...num_classes}", class_probs="${..class_probs}"
        ),
        box_calibrator=L(box_calibrator_for)(path=settings.TEST.BOX_CALIBRATOR, box_std=True),
    )
    if res5:
        heads.update(dropout)
    for name, node in box_heads.items():
        _replace(node, f"model.roi_heads.{name}", _BOX_HEADS)
        node.update(dropout)
    for name, node in box_nodes(heads, "box_predictor").items():
        _replace(node, f"model.roi_heads.{name}", _PREDICTORS)
        node.update(
            loss=settings.LOSS,
            dd_weight=settings.DD_WEIGHT,
            match="${...targets.match}" if "[" in name else "${..targets.match}",  # a list is one level more
            dropout_rate=settings.DROPOUT.RATE if "predictor" in positions else 0.0,
            box_std=settings.BOX_STD,
            box_std_loss=settings.BOX_STD_LOSS,
        )
    cfg.teacher = {
        "source": settings.TARGETS.SOURCE,
        "mc_samples": settings.TARGETS.MC_SAMPLES,
        "weights": list(settings.TEACHER.WEIGHTS),
        "out_of_fold": settings.TEACHER.OUT_OF_FOLD,
    }
    return cfg


@to_plain.register
def _(cfg: DictConfig) -> DictConfig:
    cfg = copy.deepcopy(cfg)
    cfg.pop("teacher", None)
    heads = cfg.model.roi_heads
    parts = [cfg.model, heads, *box_nodes(heads, "box_head").values(), *box_nodes(heads, "box_predictor").values()]
    plain = {ddn: plain for forms in (_MODELS, _HEADS, _BOX_HEADS, _PREDICTORS) for plain, ddn in forms.items()}
    for node in parts:
        for name in _OWN.get(target(node), ()):
            del node[name]  # pop would look up what it stands for
        node._target_ = plain.get(target(node), node._target_)
    return cfg


def _replace(node: DictConfig, name: str, forms: dict[type, type]) -> None:
    known = " or ".join(form.__name__ for form in forms)
    called = target(node) if "_target_" in node else None
    if called not in (*forms, *forms.values()):
        found = getattr(called, "__name__", called)
        raise ConfigError(f"{name} is {found!r}: only models with {known} can be distilled")
    node._target_ = forms.get(called, called)


def _hidden_layers(box_head: DictConfig) -> tuple[str, ...]:
    kinds = {"conv": len(box_head.get("conv_dims", [])), "fc": len(box_head.get("fc_dims", []))}
    return tuple(f"{kind}{k + 1}" for kind, count in kinds.items() for k in range(count))


def check_lazy(cfg: DictConfig) -> None:
    """Raise ConfigError where the settings of a distilled LazyConfig contradict each other, as `check_ddn_config`."""
    heads, teacher = cfg.model.roi_heads, cfg.teacher
    predictors = list(box_nodes(heads, "box_predictor").items())
    choices = {
        "teacher.source": (teacher.source, ("online", "none")),
        "model.roi_heads.targets.match": (heads.targets.match, ("gt_iou", "per_proposal")),
        "model.roi_heads.targets.average": (heads.targets.average, ("logits", "probs")),
    }
    for name, node in predictors:
        choices[f"model.roi_heads.{name}.loss"] = node.loss, ("logits", "kl")
        choices[f"model.roi_heads.{name}.box_std_loss"] = node.box_std_loss, ("beta_nll", "crps")
    for part in cfg.model.freeze:
        choices[f"each of model.freeze, {list(cfg.model.freeze)},"] = part, FREEZABLE
    for key, (value, known) in choices.items():
        if value not in known:
            raise ConfigError(f"{key} must be one of {known}, got {value!r}")
    if not 0 < heads.targets.share <= 1:
        raise ConfigError(f"model.roi_heads.targets.share must lie between 0 and 1, got {heads.targets.share}")
    if teacher.mc_samples < 1 or heads.test.mc_samples < 0:
        raise ConfigError("teacher.mc_samples must be at least 1, and model.roi_heads.test.mc_samples at least 0")
    if heads.test.ensemble and (heads.test.mc_samples or not teacher.weights):
        raise ConfigError(
            "model.roi_heads.test.ensemble averages the members in teacher.weights: name them, and leave "
            "model.roi_heads.test.mc_samples at 0"
        )
    scaled = (heads.test.box_calibrator or {}).get("path")
    if scaled and not (heads.test.mc_samples or heads.test.ensemble or predictors[-1][1].box_std):
        raise ConfigError(
            "model.roi_heads.test.box_calibrator scales deviations of boxes: set box_std of the predictor, or "
            "model.roi_heads.test.mc_samples"
        )
    if teacher.out_of_fold and not teacher.weights:
        raise ConfigError("teacher.out_of_fold is of ensembles: name the members in teacher.weights")
    inside = [heads] if "dropout_after" in heads else box_nodes(heads, "box_head").values()
    hidden = any(len(node.dropout_after) for node in inside)
    if not (hidden or any(node.dropout_rate for _, node in predictors)) and not teacher.weights:
        raise ConfigError("there is no dropout: name layers in dropout_after, or set the predictor's dropout_rate")
    for _, node in predictors:
        if node.loss == "kl" and heads.targets.average != "probs":
            raise ConfigError("the loss 'kl' learns mean probabilities: set model.roi_heads.targets.average to 'probs'")
    if heads.targets.average == "logits" and not hidden and not teacher.weights:
        raise ConfigError(
            "an empty lesson: the predictor is linear, so with dropout right before it alone the mean of its logits is "
            "its logits without dropout; set model.roi_heads.targets.average to 'probs' or name layers in dropout_after"
        )
