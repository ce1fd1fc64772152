"""A student as plain Detectron2 knows it: the package that trained it is not needed to run it."""

import logging
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
    build_model,
)
from torch import nn

from uncertainty_core.io.files import open_atomically, write_text
from uncertainty_core.recalibration import save
from uncertainty_core.recalibration.recipes import FILE as CALIBRATOR

from ..boxes import without_box_std
from ..config import ConfigError, check_ddn_config, read_calibrator
from ..convert import is_ddn, to_plain
from .trainer import DISTILLED, build_network, load_weights

_PARTS = {
    "META_ARCHITECTURE": META_ARCH_REGISTRY,
    "BACKBONE": BACKBONE_REGISTRY,
    "PROPOSAL_GENERATOR": PROPOSAL_GENERATOR_REGISTRY,
    "ROI_HEADS": ROI_HEADS_REGISTRY,
}

logger = logging.getLogger(__name__)


def load_student(cfg: CfgNode) -> nn.Module:
    """The student with the weights in `MODEL.WEIGHTS`; ConfigError for what is none, or was not distilled."""
    if not is_ddn(cfg):
        raise ConfigError("the config describes a plain detector, which needs no export")
    check_ddn_config(cfg)
    model = build_network(cfg).eval()
    if DISTILLED not in load_weights(cfg, model, cfg.MODEL.WEIGHTS):
        raise ConfigError(f"{cfg.MODEL.WEIGHTS} was not distilled: name a checkpoint that a distillation has written")
    return model


def export_plain(cfg: CfgNode, model: nn.Module, folder: str | Path) -> list[Path]:
    """Write model.pth and config.yaml into `folder`, and calibrator.json if there is one; returns their paths.

    What `MODEL.DDN.TEST` adds (Monte-Carlo passes, class probabilities, a calibrator) is not part of plain Detectron2.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, config = folder / "model.pth", folder / "config.yaml"
    test = cfg.MODEL.DDN.TEST
    if test.MC_SAMPLES or test.CLASS_PROBS or test.CALIBRATOR or cfg.MODEL.DDN.BOX_STD:
        logger.warning(
            "plain Detectron2 has nothing like MODEL.DDN.TEST and BOX_STD: one pass, scores as they are, no deviations"
        )
    with open_atomically(weights) as file:
        torch.save({"model": without_box_std(model.state_dict())}, file)
    plain = to_plain(cfg)
    plain.MODEL.WEIGHTS = str(weights)
    write_text(config, plain.dump())
    calibrator = read_calibrator(cfg)
    if calibrator is None:
        return [weights, config]
    save(calibrator, folder / CALIBRATOR)
    return [weights, config, folder / CALIBRATOR]


def foreign_modules(cfg: CfgNode) -> dict[str, str]:
    """Modules that whoever runs the exported model has to import, since plain Detectron2 lacks what is in them.

    Returns:
        the part, such as "build_small_backbone", by the name of its module.
    """
    plain = to_plain(cfg)
    names = [(part.NAME if hasattr(part := plain.MODEL[key], "NAME") else part, known) for key, known in _PARTS.items()]
    modules = {known.get(name).__module__: name for name, known in names}
    return {module: name for module, name in modules.items() if module.split(".")[0] != "detectron2"}


def export_torchscript(cfg: CfgNode, model: nn.Module, image_file: str | Path, file: str | Path) -> Path:
    """Trace the plain model on an image with Detectron2's own exporter; RuntimeError where it is not installed.

    The file takes an image (3, H, W), resized as at test time and in `INPUT.FORMAT`, and returns the fields of its
    detections, in the order of their names.
    """
    try:
        from detectron2.export import TracingAdapter
    except ImportError as error:
        raise RuntimeError(f"this Detectron2 cannot export TorchScript: {error}") from None
    plain = build_model(to_plain(cfg)).eval()
    plain.load_state_dict(without_box_std(model.state_dict()))
    image = detection_utils.read_image(str(image_file), format=cfg.INPUT.FORMAT)
    tensor = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))

    def detect(model: nn.Module, inputs: list[dict]) -> list[dict]:
        return [{"instances": model.inference(inputs, do_postprocess=False)[0]}]

    adapter = TracingAdapter(plain, [{"image": tensor}], detect)
    with torch.no_grad():
        traced = torch.jit.trace(adapter, (tensor,), check_trace=False)
    with open_atomically(Path(file)) as opened:
        torch.jit.save(traced, opened)
    return Path(file)
