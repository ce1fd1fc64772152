"""What decides the outcome of a training, for the folder that remembers it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from uncertainty_core import file_sha256
from uncertainty_core.io.claims import without
from uncertainty_core.sampling.folds import HELD_OUT

from ..config import NEVER_DECISIVE, OF_A_PROGRAM, all_settings
from ..data.unlabelled import images_fingerprint

WAY_OUT = "choose another OUTPUT_DIR, or start over with --overwrite"

# Keys, or whole sections, that do not change the weights that a training ends with.
_HARMLESS = (*NEVER_DECISIVE, "DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD")
# The same for what an evaluation finds.
_NOT_EVALUATED = (
    *(*OF_A_PROGRAM, "MODEL.WEIGHTS", "SOLVER", "SEED", "DATALOADER"),
    *("DATASETS.TRAIN", "DATASETS.PROPOSAL_FILES_TRAIN", "TEST.EXPECTED_RESULTS", "TEST.EVAL_PERIOD"),
)


def training_settings(cfg: CfgNode, origin: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """JSON values of all that decides what a training of `cfg` ends with, by their whole names.

    Args:
        cfg: of the training.
        origin: what stands for the weights that it starts from, if these are still to be trained.
    """
    return without(all_settings(cfg), _HARMLESS) | files_of(cfg, origin)


def evaluation_settings(cfg: CfgNode, weights: str) -> dict[str, Any]:
    """JSON values of all that decides what an evaluation of `weights` on `DATASETS.TEST` finds."""
    annotations = {name: _content(MetadataCatalog.get(name).get("json_file")) for name in cfg.DATASETS.TEST}
    files = {"weights": _content(weights), "annotations": annotations}
    if "DDN" in cfg.MODEL:
        files["calibrator"] = _content(cfg.MODEL.DDN.TEST.CALIBRATOR)
        if cfg.MODEL.DDN.TEST.BOX_CALIBRATOR:
            files["box_calibrator"] = _content(cfg.MODEL.DDN.TEST.BOX_CALIBRATOR)
        if cfg.MODEL.DDN.TEST.ENSEMBLE:
            files["members"] = [_content(path) for path in cfg.MODEL.DDN.TEACHER.WEIGHTS]
    calibrators = (f"MODEL.DDN.TEST.{key}" for key in ("CALIBRATOR", "BOX_CALIBRATOR"))
    return without(all_settings(cfg), (*_NOT_EVALUATED, *calibrators)) | files


def files_of(cfg: CfgNode, origin: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of the files that a config names. Arguments as `training_settings`."""
    files = {
        "annotations": {name: _content(MetadataCatalog.get(name).get("json_file")) for name in cfg.DATASETS.TRAIN},
        "start": _content(cfg.MODEL.WEIGHTS) if origin is None else dict(origin),
        "members": [],
    }
    if "DDN" in cfg.MODEL:
        teacher, unlabelled = cfg.MODEL.DDN.TEACHER, cfg.MODEL.DDN.UNLABELLED
        files["members"] = [_content(path) for path in teacher.WEIGHTS]
        if teacher.OUT_OF_FOLD:
            files["held_out"] = [_content(str(Path(path).with_name(HELD_OUT))) for path in teacher.WEIGHTS]
        if unlabelled:
            files["unlabelled"] = [images_fingerprint(name) for name in unlabelled]
    return files


def _content(path: str | None) -> str | None:
    """What tells a file from all others; its name where it is not on this machine."""
    return file_sha256(path) if path and Path(path).is_file() else path
