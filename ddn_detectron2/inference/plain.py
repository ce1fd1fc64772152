"""Students on the command line of the tools that write them for plain Detectron2; each file is announced."""

import argparse

from detectron2.config import CfgNode
from torch import nn

from uncertainty_core.cli import device_text, echo, log_to
from uncertainty_core.cli.flags import is_lazy
from uncertainty_core.recalibration import save
from uncertainty_core.recalibration.recipes import FILE as CALIBRATOR

from ..cli import build_config
from ..config import ConfigError
from ..convert import is_ddn
from ..convert.lazy import check_lazy
from ..engine.export import export_plain, foreign_modules, load_student
from ..engine.trainer import DISTILLED
from ..lazy import build_config as build_lazy_config
from ..lazy import build_network, export_lazy
from ..lazy.training import load_weights


def write_plain(args: argparse.Namespace) -> None:
    """Write the student of either kind of config into `args.output`."""
    if is_lazy(args.config_file):
        write_plain_lazy(args)
    else:
        write_plain_yaml(args)


def write_plain_yaml(args: argparse.Namespace) -> tuple[CfgNode, nn.Module]:
    """That of a YAML config; returns it and the student."""
    cfg = build_config(args)
    log_to(args.output / "log.txt")
    echo(device_text(cfg.MODEL.DEVICE))
    model = load_student(cfg)
    for path in export_plain(cfg, model, args.output):
        echo(f"wrote {path}")
    for module, name in foreign_modules(cfg).items():
        echo(f"plain Detectron2 lacks {name}: import {module} before the model is built")
    return cfg, model


def write_plain_lazy(args: argparse.Namespace) -> None:
    """That of a LazyConfig."""
    cfg = build_lazy_config(args)
    if not is_ddn(cfg):
        raise ConfigError("the config describes a plain detector, which needs no export")
    check_lazy(cfg)
    log_to(args.output / "log.txt")
    echo(device_text(cfg.train.device))
    model = build_network(cfg).eval()
    if DISTILLED not in load_weights(cfg, model, cfg.train.init_checkpoint):
        raise ConfigError(f"{cfg.train.init_checkpoint} was not distilled: name a checkpoint of a distillation")
    weights, config = export_lazy(cfg, model, args.output)
    echo(f"wrote {weights}")
    calibrator = model.roi_heads.test_settings.calibrator
    if calibrator is not None:
        save(calibrator, args.output / CALIBRATOR)
        echo(f"wrote {args.output / CALIBRATOR}, which plain Detectron2 does not apply")
    if config is None:
        echo(f"no file holds functions without a name: load the weights into the model of {args.config_file}")
    else:
        echo(f"wrote {config}, for LazyConfig.load")
