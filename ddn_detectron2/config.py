"""Every key of `cfg.MODEL.DDN`, with the symbol it has in the DDN paper (Gurau 2018), and the checks across keys."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from uncertainty_core.errors import UserError
from uncertainty_core.io.claims import flatten
from uncertainty_core.recalibration import (
    CalibratorError,
    ConformalBoxes,
    ProbabilityCalibrator,
    ScoreCalibrator,
    check_fits,
    load,
)
from uncertainty_core.recalibration.base import BOXES, PROBABILITIES


class ConfigError(UserError):
    """A config or command line that cannot work; the message is one sentence with the reason."""


def add_ddn_config(cfg: CfgNode) -> None:
    """Add `cfg.MODEL.DDN`: the one place of its defaults, which no constructor repeats."""
    ddn = cfg.MODEL.DDN = CfgNode()

    # What is small where student and teacher agree: "logits", the squared distance of their logits (the paper); "kl",
    # the divergence of the student's probabilities from the mean of the teacher's.
    ddn.LOSS = "logits"
    # Weight of that loss: λ in section V, 1 in eq. 7.
    ddn.DD_WEIGHT = 0.5
    # Weight of the cross-entropy with the ground truth: 1 in section V, λ in eq. 7.
    ddn.GT_WEIGHT = 1.0
    # A second output of the predictor: the standard deviation of each box delta, as `box_std` of the detections. It is
    # trained on the ground truth and reads features without changing them: boxes and scores are those without it.
    ddn.BOX_STD = False
    # The proper score that it learns by: "beta_nll", or "crps", the energy score, which outliers move less.
    ddn.BOX_STD_LOSS = "beta_nll"
    # What stays as it is beside the backbone and the proposal generator, which always do:
    # any of "mask_head", "keypoint_head", "box_regression".
    ddn.FREEZE = ("mask_head", "keypoint_head")
    # Start the box head and its predictor from random weights of SEED, not from MODEL.WEIGHTS: a member of an ensemble
    # on one trunk. The res5 of Res5ROIHeads, whose predictor alone starts anew, stays.
    ddn.FRESH_HEAD = False

    ddn.DROPOUT = CfgNode()
    # Probability of dropping (the paper's "dropout rate" is that of keeping: θ = 0.8). "residual" moves the
    # logits less than other positions do, and wants more, such as 0.5.
    ddn.DROPOUT.RATE = 0.2
    # After which layers of the box head: "conv1", ..., "fc1", ... (Standard- and CascadeROIHeads), "block1", "block2"
    # (Res5ROIHeads); "residual" for what the last block of res5 adds to its input, so that its convolutions run once
    # for all passes; "predictor" for right before the predictor. () is "residual", or before the last hidden layer, or
    # before the predictor where there is one hidden layer only.
    ddn.DROPOUT.POSITIONS = ()

    ddn.TARGETS = CfgNode()
    # "online": the teacher runs beside the student; "store": read what tools/generate_targets.py wrote; "none": labels
    # alone.
    ddn.TARGETS.SOURCE = "online"
    # Folder of the store.
    ddn.TARGETS.STORE = ""
    # "per_proposal": the teacher's logits for each sampled proposal, background included;
    # "gt_iou": for each ground-truth box the teacher's detections that overlap it (the paper).
    ddn.TARGETS.MATCH = "per_proposal"
    # Of the sampled proposals, the part that the teacher is asked about in each step ("per_proposal"), drawn anew: its
    # cost falls with it, and the mean of the loss stays. 0 is one half for Res5ROIHeads, whose teacher would spend on
    # each box more than a quarter of what training on it takes, and 1 for the others.
    ddn.TARGETS.SHARE = 0.0
    # Overlap from which on a detection belongs to a ground-truth box; the paper tries 0.3, 0.5 and 0.7.
    ddn.TARGETS.IOU = 0.5
    # Score above which the teacher's detections count.
    ddn.TARGETS.SCORE_THRESH = 0.05
    # What is averaged over the passes: "probs", or "logits" (eq. 10), whose mean is nearly as sure as one pass.
    ddn.TARGETS.AVERAGE = "probs"
    # Number of stochastic passes: M.
    ddn.TARGETS.MC_SAMPLES = 10
    # Dropout masks of stored targets depend on (SEED, image id, number of the pass) alone.
    ddn.TARGETS.SEED = 0
    # An image that the store lacks: "error", or "ground_truth" to train on its labels alone.
    ddn.TARGETS.MISSING = "error"

    # (k, K): train on all images but those of fold k of K, as the members of an ensemble do; () for all of them.
    ddn.LEAVE_OUT = ()
    # Data sets of which students learn from the teacher alone, and not from labels: see `register_unlabelled`,
    # and --unlabelled-images of the tools. With the online teacher, "per_proposal".
    ddn.UNLABELLED = ()

    ddn.TEACHER = CfgNode()
    # (): Monte-Carlo dropout of the network in MODEL.WEIGHTS. Otherwise the checkpoints of a deep ensemble.
    ddn.TEACHER.WEIGHTS = ()
    # Ask only those members about a training image that never saw it (train_ensemble --folds); about others, all.
    ddn.TEACHER.OUT_OF_FOLD = False

    ddn.TEST = CfgNode()
    # Average this many stochastic passes (MC-M of the paper's tables); 0 for one pass without dropout.
    # Adds `score_std` to the detections.
    ddn.TEST.MC_SAMPLES = 0
    # Average the members in TEACHER.WEIGHTS, which predict for the proposals of MODEL.WEIGHTS; adds `score_std`, too.
    ddn.TEST.ENSEMBLE = False
    # Dropout masks depend on (SEED, number of the pass) alone, hence results do not depend on order or batch.
    ddn.TEST.SEED = 0
    # Add `class_probs` to the detections, (K + 1) probabilities each, the last one for background; K where
    # MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE gives each class a probability of its own.
    ddn.TEST.CLASS_PROBS = False
    # A file that tools/fit_calibrator.py wrote, for the final scores; "" leaves them. It comes after the selection of
    # detections, and keeps the scores before as `score_before`. One for class probabilities calibrates `class_probs`,
    # of which the scores are parts; the others leave them alone, for they tell of hits or overlap, not of classes.
    ddn.TEST.CALIBRATOR = ""
    # A file that tools/fit_calibrator.py --target box wrote: `box_std` of the detections is multiplied by its factor.
    ddn.TEST.BOX_CALIBRATOR = ""

    cfg.register_renamed_key(
        "MODEL.DDN.TEST.TEMPERATURE",
        "MODEL.DDN.TEST.CALIBRATOR",
        message="it names a file of tools/fit_calibrator.py, where a temperature is one method of several",
    )


# Keys that are younger than folders of users: at their defaults they decide nothing that was not decided before.
_YOUNGER = (
    *(f"MODEL.DDN.{key}" for key in ("LOSS", "FRESH_HEAD", "BOX_STD", "BOX_STD_LOSS", "LEAVE_OUT", "UNLABELLED")),
    *(f"MODEL.DDN.TEST.{key}" for key in ("ENSEMBLE", "BOX_CALIBRATOR")),
    "MODEL.DDN.TEACHER.OUT_OF_FOLD",
)
# Keys that say where and how a program runs.
OF_A_PROGRAM = ("OUTPUT_DIR", "VERSION", "VIS_PERIOD", "CUDNN_BENCHMARK", "MODEL.DEVICE")
# Keys, or whole sections, that change neither a teacher's targets nor the weights that a training ends with.
NEVER_DECISIVE = (
    *OF_A_PROGRAM,
    # files, whose content counts
    *("MODEL.WEIGHTS", "MODEL.DDN.TEACHER", "MODEL.DDN.TARGETS.STORE"),
    # evaluation
    *("DATASETS.TEST", "DATASETS.PROPOSAL_FILES_TEST", "MODEL.DDN.TEST", "MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
    *("TEST.EXPECTED_RESULTS", "TEST.EVAL_PERIOD", "TEST.AUG", "TEST.KEYPOINT_OKS_SIGMAS"),
)
FREEZABLE = ("mask_head", "keypoint_head", "box_regression")
_CHOICES = {
    "LOSS": ("logits", "kl"),
    "BOX_STD_LOSS": ("beta_nll", "crps"),
    "TARGETS.SOURCE": ("online", "store", "none"),
    "TARGETS.MATCH": ("gt_iou", "per_proposal"),
    "TARGETS.AVERAGE": ("logits", "probs"),
    "TARGETS.MISSING": ("error", "ground_truth"),
}


def default_settings() -> CfgNode:
    """A config of `MODEL.DDN` alone."""
    defaults = CfgNode({"MODEL": CfgNode()})
    add_ddn_config(defaults)
    return defaults


def all_settings(cfg: CfgNode) -> dict[str, Any]:
    """Every value of `cfg` by its whole name, as folders remember it."""
    younger = {key: value for key, value in flatten(default_settings()).items() if key in _YOUNGER}
    return {key: value for key, value in flatten(cfg).items() if key not in younger or value != younger[key]}


def read_calibrator(cfg: CfgNode) -> ScoreCalibrator | ProbabilityCalibrator | None:
    """What `TEST.CALIBRATOR` names, None for nothing; checked against the model."""
    test = cfg.MODEL.DDN.TEST
    return calibrator_for(test.CALIBRATOR, cfg.MODEL.ROI_HEADS.NUM_CLASSES, test.CLASS_PROBS)


def calibrator_for(path: str, num_classes: int, class_probs: bool) -> ScoreCalibrator | ProbabilityCalibrator | None:
    """The calibrator in the file that `TEST.CALIBRATOR` names, None for "".

    It is checked against the model: how many foreground classes it has, and whether it gives `class_probs`.
    """
    if not path:
        return None
    try:
        calibrator = load(path)
        if calibrator.task == BOXES:
            raise ConfigError(
                "MODEL.DDN.TEST.CALIBRATOR maps scores, and the file is for deviations of boxes: name it in "
                "MODEL.DDN.TEST.BOX_CALIBRATOR"
            )
        of_classes = calibrator.task == PROBABILITIES
        check_fits(calibrator, calibrator.task, num_classes + of_classes)  # one more: background
    except CalibratorError as error:
        raise ConfigError(f"MODEL.DDN.TEST.CALIBRATOR: {error}") from None
    if of_classes and not class_probs:
        raise ConfigError(
            "MODEL.DDN.TEST.CALIBRATOR is for class probabilities: set MODEL.DDN.TEST.CLASS_PROBS to True"
        )
    return calibrator


def read_box_calibrator(cfg: CfgNode) -> ConformalBoxes | None:
    """What `TEST.BOX_CALIBRATOR` names, None for nothing; checked against the model."""
    test = cfg.MODEL.DDN.TEST
    return box_calibrator_for(test.BOX_CALIBRATOR, cfg.MODEL.DDN.BOX_STD or test.MC_SAMPLES > 0 or test.ENSEMBLE)


def box_calibrator_for(path: str, box_std: bool) -> ConformalBoxes | None:
    """The calibrator in the file that `TEST.BOX_CALIBRATOR` names, None for "".

    It is checked against the model: whether it gives `box_std`.
    """
    if not path:
        return None
    try:
        calibrator = load(path)
        check_fits(calibrator, BOXES, num_classes=0)  # it takes any number
    except CalibratorError as error:
        raise ConfigError(f"MODEL.DDN.TEST.BOX_CALIBRATOR: {error}") from None
    if not box_std:
        raise ConfigError(
            "MODEL.DDN.TEST.BOX_CALIBRATOR scales deviations of boxes, which come from MODEL.DDN.BOX_STD, or from the "
            "passes of MODEL.DDN.TEST.MC_SAMPLES or ENSEMBLE: set one of them"
        )
    return calibrator


def box_head_layers(cfg: CfgNode) -> tuple[str, ...]:
    """Names of the hidden layers of the box head, in order."""
    if "Res5" in cfg.MODEL.ROI_HEADS.NAME:
        return "block1", "block2", "block3"
    head = cfg.MODEL.ROI_BOX_HEAD
    return (*(f"conv{k + 1}" for k in range(head.NUM_CONV)), *(f"fc{k + 1}" for k in range(head.NUM_FC)))


def proposal_share(cfg: CfgNode) -> float:
    """`TARGETS.SHARE`, or the default."""
    return cfg.MODEL.DDN.TARGETS.SHARE or (0.5 if "Res5" in cfg.MODEL.ROI_HEADS.NAME else 1.0)


def dropout_positions(cfg: CfgNode) -> tuple[str, ...]:
    """`DROPOUT.POSITIONS`, or the default, in the order of the layers; checked."""
    return positions_among(box_head_layers(cfg), "Res5" in cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.DDN.DROPOUT.POSITIONS)


def positions_among(hidden: Sequence[str], residual: bool, chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """The `chosen` positions of dropout, or the default, in the order of the layers; ConfigError for one there is not.

    Args:
        hidden: names of the hidden layers of the box head.
        residual: whether the last of them has two branches.
        chosen: see `DROPOUT.POSITIONS`.
    """
    valid = (*hidden[:-1], *(("residual",) if residual else ()), "predictor")
    if not chosen:
        return valid[-2:-1] or valid
    for position in chosen:
        if position in hidden[-1:]:
            raise ConfigError(f"MODEL.DDN.DROPOUT.POSITIONS: after {position!r} comes the predictor: use 'predictor'")
        if position not in valid:
            raise ConfigError(f"MODEL.DDN.DROPOUT.POSITIONS must be among {valid} for this box head, got {position!r}")
    return tuple(position for position in valid if position in chosen)


def check_ddn_config(cfg: CfgNode) -> None:
    """Raise ConfigError where keys contradict each other or the model; the message names them and what to do."""
    ddn = cfg.MODEL.DDN
    for key, choices in _CHOICES.items():
        *section, name = key.split(".")
        value = (ddn[section[0]] if section else ddn)[name]
        if value not in choices:
            raise ConfigError(f"MODEL.DDN.{key} must be one of {choices}, got {value!r}")
    for part in ddn.FREEZE:
        if part not in FREEZABLE:
            raise ConfigError(f"MODEL.DDN.FREEZE must name some of {FREEZABLE}, got {part!r}")
    if not 0 < ddn.DROPOUT.RATE < 1:
        raise ConfigError(f"MODEL.DDN.DROPOUT.RATE must lie between 0 and 1, got {ddn.DROPOUT.RATE}")
    if not 0 <= ddn.TARGETS.SHARE <= 1:
        raise ConfigError(f"MODEL.DDN.TARGETS.SHARE must lie between 0 and 1, got {ddn.TARGETS.SHARE}")
    read_calibrator(cfg)
    read_box_calibrator(cfg)
    if ddn.TARGETS.MC_SAMPLES < 1 or ddn.TEST.MC_SAMPLES < 0:
        raise ConfigError("MODEL.DDN.TARGETS.MC_SAMPLES must be at least 1, and MODEL.DDN.TEST.MC_SAMPLES at least 0")
    if ddn.TEST.ENSEMBLE and (ddn.TEST.MC_SAMPLES or not ddn.TEACHER.WEIGHTS):
        raise ConfigError(
            "MODEL.DDN.TEST.ENSEMBLE averages the members in MODEL.DDN.TEACHER.WEIGHTS: name them, and leave "
            "MODEL.DDN.TEST.MC_SAMPLES at 0"
        )
    if dropout_positions(cfg) == ("predictor",) and ddn.TARGETS.AVERAGE == "logits" and not ddn.TEACHER.WEIGHTS:
        raise ConfigError(
            "an empty lesson: the predictor is linear, so with dropout right before it alone the mean of its logits is "
            "its logits without dropout; set MODEL.DDN.TARGETS.AVERAGE to 'probs' or choose other DROPOUT.POSITIONS"
        )
    if ddn.TEACHER.OUT_OF_FOLD and not ddn.TEACHER.WEIGHTS:
        raise ConfigError(
            "MODEL.DDN.TEACHER.OUT_OF_FOLD is of ensembles: name the members in MODEL.DDN.TEACHER.WEIGHTS"
        )
    if ddn.UNLABELLED:
        _check_unlabelled(cfg)
    if ddn.LOSS == "kl" and ddn.TARGETS.AVERAGE != "probs":
        raise ConfigError("MODEL.DDN.LOSS 'kl' learns mean probabilities: set MODEL.DDN.TARGETS.AVERAGE to 'probs'")
    if ddn.TARGETS.SOURCE == "store":
        if not ddn.TARGETS.STORE:
            raise ConfigError("MODEL.DDN.TARGETS.STORE must name the folder that tools/generate_targets.py wrote")
        if ddn.TARGETS.MATCH != "gt_iou":
            raise ConfigError(
                "MODEL.DDN.TARGETS.SOURCE 'store' goes with MATCH 'gt_iou': proposals are sampled anew in each step, "
                "so targets per proposal have to come from the online teacher"
            )


def _check_unlabelled(cfg: CfgNode) -> None:
    targets = cfg.MODEL.DDN.TARGETS
    if (targets.SOURCE, targets.MATCH) != ("online", "per_proposal"):
        raise ConfigError(
            "MODEL.DDN.UNLABELLED needs MODEL.DDN.TARGETS.SOURCE 'online' and MATCH 'per_proposal': other targets are "
            "of ground-truth boxes, which unlabelled images lack"
        )
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN {cfg.DATALOADER.SAMPLER_TRAIN!r} draws images by their labels, which those of "
            "MODEL.DDN.UNLABELLED lack: set it to 'TrainingSampler'"
        )
    if cfg.MODEL.LOAD_PROPOSALS:
        raise ConfigError("MODEL.DDN.UNLABELLED needs a detector that proposes boxes itself: no file has its proposals")
