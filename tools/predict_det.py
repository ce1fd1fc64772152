"""Show images of your own to a detector, and see where it is unsure: a student, an ensemble or Monte-Carlo dropout.

    distilled-uncertainty predict-det --config-file my_student.yaml --images photos --output predicted \\
        MODEL.WEIGHTS model_final.pth

No labels are needed. OUTPUT gets

    pictures/        each image with the detections whose score is high enough, under its name
    detections.json  all detections in COCO's format with their scores and deviations: labelling tools read it
    images.csv       the images, the most doubtful first, which are those worth labelling. The doubt of an image is
                     the sum of min(p, 1 - p) over its detections with scores p: how many are expected to be judged
                     wrongly by "right if p is at least 0.5"
    index.png        the pictures of the first ones

Names of classes are those of the config's data sets, or of --test-json. Started again it goes on where it stopped, and
does anew only what has changed. Other images join those that are there already. MODEL.DDN.TEST.MC_SAMPLES 10 is
Monte-Carlo dropout, MODEL.DDN.TEST.CALIBRATOR calibrator.json calibrates the scores.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import check_at_least, device_text, echo, program
from uncertainty_core.cli.flags import check_detector_arguments, detector_parser
from uncertainty_core.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = detector_parser(__doc__, processes=False)
    parser.add_argument("--images", required=True, type=Path, metavar="PATH", help="an image, or a folder of any depth")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="for the results; made if need be")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, help="draw detections from here on (default: %(default)s)"
    )
    parser.add_argument("--top", type=int, default=12, help="how many images index.png shows (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Predict, and print where the results are."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_at_least(parser, args, 1, "top")
    if not 0 <= args.score_threshold <= 1:
        parser.error(f"--score-threshold must lie in [0, 1], got {args.score_threshold}")
    with program(args):
        check_detector_arguments(args)
        if not args.images.exists():
            raise UserError(f"there is no folder and no image {args.images}")
        from ddn_detectron2.cli import build_config
        from ddn_detectron2.inference.folder import predict_folder

        cfg = build_config(args)
        echo(device_text(cfg.MODEL.DEVICE))
        ranked = predict_folder(cfg, args.images, args.output, args.score_threshold, args.top)
        echo(f"{len(ranked)} images in {args.output}, the most doubtful is {ranked[0].image} ({ranked[0].doubt:.2f})")
        echo(f"See {args.output / 'index.png'} and {args.output / 'images.csv'}")


if __name__ == "__main__":
    main()
