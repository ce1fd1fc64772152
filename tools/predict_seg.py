"""Show images of your own to a segmentor, and see where it is unsure: a student, an ensemble or Monte-Carlo dropout.

    distilled-uncertainty predict-seg my_student.py my_student.pth --images photos --output predicted
    distilled-uncertainty predict-seg my_teacher.py --images photo.jpg --output predicted

No labels are needed. OUTPUT gets, for each image and under its name,

    strips/       image, classes and uncertainty side by side, to be looked at
    classes/      the predicted class of each pixel, as PNG with the colours of the classes
    uncertainty/  its standard deviation, as 16-bit PNG: value / 65535

and for all of them images.csv, the most uncertain first, which are those worth labelling, and index.png with the
strips of the first ones. Started again it goes on where it stopped, and does anew only what has changed. Other images
join those that are there already.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import check_at_least, device_text, echo, program
from uncertainty_core.cli.segmentor_flags import CONFIG_HELP, check_segmentor_arguments, options_parser
from uncertainty_core.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = options_parser(__doc__)
    parser.add_argument("config", help=CONFIG_HELP)
    parser.add_argument("checkpoint", nargs="?", help="weights of a student; a teacher has its own")
    parser.add_argument("--images", required=True, type=Path, metavar="PATH", help="an image, or a folder of any depth")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="for the results; made if need be")
    parser.add_argument(
        "--level",
        type=float,
        default=0.1,
        help="images.csv says what share of an image's pixels is more uncertain than this (default: %(default)s)",
    )
    parser.add_argument("--top", type=int, default=12, help="how many images index.png shows (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Predict, and print where the results are."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if not 0 <= args.level < 1:
        parser.error(f"--level must lie in [0, 1), got {args.level}")
    check_at_least(parser, args, 1, "top")
    with program(args):
        check_segmentor_arguments(args.config, checkpoints=(args.checkpoint,))
        if not args.images.exists():
            raise UserError(f"there is no folder and no image {args.images}")
        from mmengine.device import get_device

        from dudes_mmseg.cli import read_config
        from dudes_mmseg.compat import silence
        from dudes_mmseg.inference.predict import predict_images

        silence()
        cfg = read_config(args.config, args.cfg_options)
        echo(device_text(get_device()))
        rows = predict_images(cfg, args.checkpoint, args.images, args.output, args.level, args.top)
        most = max(rows, key=lambda row: row.mean_uncertainty)
        echo(f"{len(rows)} images in {args.output}, the most uncertain is {most.image} ({most.mean_uncertainty:.4f})")
        echo(f"See {args.output / 'index.png'} and {args.output / 'images.csv'}")


if __name__ == "__main__":
    main()
