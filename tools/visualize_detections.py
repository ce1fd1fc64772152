"""Draw ground truth, baseline and student side by side, the images whose scores changed most first.

    distilled-uncertainty visualize-detections --gt instances_val.json --images val --baseline baseline.json \\
        --student student.json --output pictures

Detections are COCO results files from any framework. Writes a picture per image, and index.png with all of them.
Magenta: objects. Blue: detections that overlap an object of their class. Orange: the others. Thin lines, where
detections hold "box_std": the outer and the inner box, between which each side lies with a probability of 90 %.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import add_common_flags, check_at_least, device_text, echo, log_to, program
from uncertainty_core.cli.flags import check_detectron2
from uncertainty_core.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gt", required=True, type=Path, metavar="JSON", help="COCO instances")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="what its file names start from")
    parser.add_argument("--baseline", required=True, type=Path, metavar="JSON", help="COCO results of the baseline")
    parser.add_argument("--student", required=True, type=Path, metavar="JSON", help="COCO results of the student")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="for the pictures; made if need be")
    parser.add_argument("--top", type=int, default=20, help="how many images to draw (default: %(default)s)")
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        help="draw the detections whose score reaches it in either model (default: %(default)s)",
    )
    parser.add_argument(
        "--iou-threshold",
        type=float,
        default=0.5,
        help="overlap from which on two boxes of one class are the same (default: %(default)s)",
    )
    parser.add_argument(
        "--box-calibrator",
        type=Path,
        metavar="FILE",
        help="what fit-calibrator --target box wrote: scales the deviations of the student's boxes",
    )
    add_common_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Compare all images, draw the first ones."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_at_least(parser, args, 1, "top")
    if not 0 < args.iou_threshold <= 1:
        parser.error(f"--iou-threshold must lie in (0, 1], got {args.iou_threshold}")
    with program(args):
        check_detectron2()
        # files are read, and refused, before Detectron2 is imported
        from uncertainty_core.detection import read_detections, read_ground_truth

        ground_truth = read_ground_truth(args.gt)
        for path in (args.baseline, args.student):
            student = read_detections(path, ground_truth)
        box_calibrator = None
        if args.box_calibrator is not None:
            from uncertainty_core.recalibration import check_fits, load
            from uncertainty_core.recalibration.base import BOXES

            box_calibrator = load(args.box_calibrator)
            check_fits(box_calibrator, BOXES, ground_truth.num_categories)
            if student.box_std is None:
                raise UserError(f"{args.student} holds no 'box_std' that --box-calibrator could scale")
        log_to(args.output / "log.txt")
        from ddn_detectron2.evaluation.visualizer import draw_changes

        echo(device_text("cpu"))
        drawn = draw_changes(
            args.gt,
            args.images,
            args.baseline,
            args.student,
            args.output,
            args.top,
            args.score_threshold,
            args.iou_threshold,
            box_calibrator,
        )
        echo(f"{len(drawn)} images and index.png in {args.output}")


if __name__ == "__main__":
    main()
