"""Turn a student into a plain Detectron2 model: weights and a config that load without this package.

distilled-uncertainty export-student --config-file ddn_R50.yaml --output exported MODEL.WEIGHTS model_final.pth
distilled-uncertainty export-student ... --torchscript street.jpg    # also exported/model.ts, traced on this image
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import device_text, echo, log_to, program
from uncertainty_core.cli.flags import check_detector_arguments, detector_parser, is_lazy
from uncertainty_core.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = detector_parser(__doc__, processes=False)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--torchscript", type=Path, metavar="IMAGE", help="also trace a TorchScript file on this image")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the files."""
    args = build_parser().parse_args(argv)
    with program(args):
        check_detector_arguments(args, lazy=True)
        if args.torchscript is not None and not args.torchscript.is_file():
            raise UserError(f"--torchscript: there is no file {args.torchscript}")
        if is_lazy(args.config_file):
            export_lazy_student(args)
        else:
            export_student(args)


def export_student(args: argparse.Namespace) -> None:
    """Of a YAML config."""
    from ddn_detectron2.cli import build_config
    from ddn_detectron2.config import ConfigError
    from ddn_detectron2.engine.export import export_plain, export_torchscript, foreign_modules, load_student

    cfg = build_config(args)
    log_to(args.output / "log.txt")
    echo(device_text(cfg.MODEL.DEVICE))
    model = load_student(cfg)
    for path in export_plain(cfg, model, args.output):
        echo(f"wrote {path}")
    for module, name in foreign_modules(cfg).items():
        echo(f"plain Detectron2 lacks {name}: import {module} before the model is built")
    if args.torchscript is not None:
        try:
            echo(f"wrote {export_torchscript(cfg, model, args.torchscript, args.output / 'model.ts')}")
        except RuntimeError as error:
            raise ConfigError(str(error)) from None


def export_lazy_student(args: argparse.Namespace) -> None:
    """Of a LazyConfig."""
    from ddn_detectron2.config import ConfigError
    from ddn_detectron2.convert import is_ddn
    from ddn_detectron2.convert.lazy import check_lazy
    from ddn_detectron2.engine.trainer import DISTILLED
    from ddn_detectron2.lazy import build_config, build_network, export_lazy
    from ddn_detectron2.lazy.training import load_weights

    if args.torchscript is not None:
        raise UserError("--torchscript is for YAML configs")
    cfg = build_config(args)
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
    if config is None:
        echo(f"no file holds functions without a name: load the weights into the model of {args.config_file}")
    else:
        echo(f"wrote {config}, for LazyConfig.load")


if __name__ == "__main__":
    main()
