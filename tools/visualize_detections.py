"""Draw ground truth, baseline and student side by side, the images whose scores changed most first.

    python tools/visualize_detections.py --gt instances_val.json --images val --baseline baseline.json \\
        --student student.json --output pictures

Detections are COCO results files from any framework. Writes a picture per image, and index.png with all of them.
Magenta: objects. Blue: detections that overlap an object of their class. Orange: the others.
"""

import argparse
import json
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ddn_detectron2.data import DatasetError, check_images
from ddn_detectron2.visualizer import (
    compare,
    contact_sheet,
    detections_of_image,
    draw_strip,
    rank_images,
    truth_of_image,
)
from uncertainty_core.detection.coco_format import CocoFormatError, read_detections, read_ground_truth


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
    ground_truth = read_ground_truth(args.gt)
    images = json.loads(args.gt.read_bytes())["images"]
    check_images(args.gt, images, args.images)
    file_names = {image["id"]: image["file_name"] for image in images}
    baseline, student = (read_detections(path, ground_truth) for path in (args.baseline, args.student))
    args.output.mkdir(parents=True, exist_ok=True)

    comparisons = {
        image: compare(
            truth_of_image(ground_truth, image),
            detections_of_image(baseline, image),
            detections_of_image(student, image),
            args.score_threshold,
            args.iou_threshold,
        )
        for image in tqdm(range(len(file_names)), desc="compare", unit="image")
    }
    strips = []
    for rank, image in enumerate(tqdm(rank_images(comparisons)[: args.top], desc="draw", unit="image"), start=1):
        comparison, image_id = comparisons[image], ground_truth.image_ids[image]
        title = f"{rank}. {file_names[image_id]} (image {image_id}): largest change {comparison.largest_change:+.2f}"
        with Image.open(args.images / file_names[image_id]) as picture:
            strip = draw_strip(
                picture.convert("RGB"), comparison, ground_truth.category_names, title, args.iou_threshold
            )
        strip.save(args.output / f"{rank:03d}_{Path(file_names[image_id]).stem}.png")
        strips.append(strip)
    contact_sheet(strips).save(args.output / "index.png")
    print(f"{len(strips)} images and index.png in {args.output}")


if __name__ == "__main__":
    try:
        main(parse())
    except (CocoFormatError, DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
