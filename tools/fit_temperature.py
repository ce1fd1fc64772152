"""Fit one temperature to the scores of any detector: the post-hoc rival of distillation.

    distilled-uncertainty fit-temperature val.json val_detections.json
    distilled-uncertainty fit-temperature val.json val_detections.json --apply test_detections.json --output scaled.json

takes COCO ground truth and COCO results of a validation set, prints the T for which sigmoid(logit(score) / T) says
best whether a detection is a true positive, and applies it to other results if asked to. With this package's detectors,
T can be MODEL.DDN.TEST.TEMPERATURE instead. The order of detections stays, and with it AP. Never fit on the images
that you report.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import add_common_flags, echo, program
from uncertainty_core.detection import Settings
from uncertainty_core.errors import UserError
from uncertainty_core.io.files import write_text


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ground_truth", type=Path, metavar="val.json", help="COCO annotations")
    parser.add_argument("detections", type=Path, metavar="val_detections.json", help="COCO results for them")
    parser.add_argument("--iou", type=float, default=0.5, help="a true positive has at least this IoU")
    parser.add_argument(
        "--score-threshold", type=float, default=Settings().score_threshold, help="lower scores are not looked at"
    )
    parser.add_argument("--apply", type=Path, metavar="FILE", help="COCO results to rescale")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write what --apply gives")
    add_common_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the temperature, and apply it."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.apply is None) != (args.output is None):
        parser.error("--apply and --output go together")
    with program(args):
        # files are read, and refused, before torch is imported
        from uncertainty_core.detection import read_detections, read_ground_truth
        from uncertainty_core.detection.coco_format import read_scores

        ground_truth = read_ground_truth(args.ground_truth)
        detections = read_detections(args.detections, ground_truth)
        if args.apply is not None:
            read_scores(args.apply)
        from uncertainty_core.detection.temperature import fit_to_detections, scale_results

        try:
            temperature = fit_to_detections(ground_truth, detections, args.iou, args.score_threshold)
        except ValueError as error:  # of --iou, --score-threshold, or where they leave nothing to fit to
            raise UserError(str(error)) from None
        echo(f"temperature {temperature:.4f}")
        if args.apply is not None:
            write_text(args.output, json.dumps(scale_results(args.apply, temperature)))
            echo(f"wrote {args.output}")


if __name__ == "__main__":
    main()
