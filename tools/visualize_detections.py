"""Draw ground truth, baseline and student side by side, the images whose scores changed most first.

    python tools/visualize_detections.py --gt instances_val.json --images val --baseline baseline.json \\
        --student student.json --output pictures

Detections are COCO results files from any framework. Writes a picture per image, and index.png with all of them.
Magenta: objects. Blue: detections that overlap an object of their class. Orange: the others.
"""

import argparse
from pathlib import Path

from ddn_detectron2.evaluation.visualizer import draw_changes
from uncertainty_core.errors import one_sentence_errors


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
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
    args = parser.parse_args(arguments)
    if args.top < 1:
        parser.error(f"--top must be at least 1, got {args.top}")
    if not 0 < args.iou_threshold <= 1:
        parser.error(f"--iou-threshold must lie in (0, 1], got {args.iou_threshold}")
    return args


def main(args: argparse.Namespace) -> None:
    """Compare all images, draw the first ones."""
    drawn = draw_changes(
        args.gt,
        args.images,
        args.baseline,
        args.student,
        args.output,
        args.top,
        args.score_threshold,
        args.iou_threshold,
    )
    print(f"{len(drawn)} images and index.png in {args.output}")


if __name__ == "__main__":
    with one_sentence_errors():
        main(parse())
