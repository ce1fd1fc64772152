"""Turn a student into a plain Detectron2 model: weights and a config that load without this package.

distilled-uncertainty export-student --config-file ddn_R50.yaml --output exported MODEL.WEIGHTS model_final.pth
distilled-uncertainty export-student ... --torchscript street.jpg    # also exported/model.ts, traced on this image
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import echo, program
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
        if args.torchscript is None:
            from ddn_detectron2.inference.plain import write_plain

            write_plain(args)
        elif is_lazy(args.config_file):
            raise UserError("--torchscript is for YAML configs")
        else:
            from ddn_detectron2.config import ConfigError
            from ddn_detectron2.engine.export import export_torchscript
            from ddn_detectron2.inference.plain import write_plain_yaml

            cfg, model = write_plain_yaml(args)
            try:
                echo(f"wrote {export_torchscript(cfg, model, args.torchscript, args.output / 'model.ts')}")
            except RuntimeError as error:
                raise ConfigError(str(error)) from None


if __name__ == "__main__":
    main()
