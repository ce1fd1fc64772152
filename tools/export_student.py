"""Turn a student into a plain Detectron2 model: weights and a config that load without this package.

python tools/export_student.py --config-file ddn_R50.yaml --output exported MODEL.WEIGHTS output/model_final.pth
python tools/export_student.py ... --torchscript street.jpg    # also exported/model.ts, traced on this image
"""

from pathlib import Path

from detectron2.modeling import build_model

from ddn_detectron2.cli import argument_parser, build_config
from ddn_detectron2.config import ConfigError, check_ddn_config
from ddn_detectron2.convert import is_ddn
from ddn_detectron2.engine.export import export_plain, export_torchscript
from ddn_detectron2.engine.trainer import load_weights
from uncertainty_core.errors import one_sentence_errors


def main(args):
    """Write the files."""
    cfg = build_config(args)
    if not is_ddn(cfg):
        raise ConfigError("the config describes a plain detector, which needs no export")
    check_ddn_config(cfg)
    model = build_model(cfg).eval()
    load_weights(cfg, model, cfg.MODEL.WEIGHTS)
    for path in export_plain(cfg, model, args.output):
        print(f"wrote {path}")
    if args.torchscript is not None:
        try:
            print(f"wrote {export_torchscript(cfg, model, args.torchscript, args.output / 'model.ts')}")
        except RuntimeError as error:
            raise ConfigError(str(error)) from None


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--torchscript", metavar="IMAGE", help="also trace a TorchScript file on this image")
    with one_sentence_errors():
        main(parser.parse_args())
