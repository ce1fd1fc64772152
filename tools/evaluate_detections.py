"""Average precision and calibration of detections of any framework: COCO ground truth and COCO results, two files.

    tools/evaluate_detections.py gt.json detections.json --output report

prints AP and AR in percent and, at each IoU threshold, the calibration of the scores in plain values; --output adds
calibration.json, the bins as JSON, and reliability diagrams.
"""

import argparse
import sys
from pathlib import Path

from uncertainty_core.detection import (
    Settings,
    evaluate,
    match_images,
    read_detections,
    read_ground_truth,
    tables,
    write_report,
)
from uncertainty_core.errors import UserError, one_sentence_errors


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ground_truth", type=Path, metavar="gt.json", help="COCO annotations")
    parser.add_argument("detections", type=Path, metavar="detections.json", help="COCO results: a list of scored boxes")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write JSON and reliability diagrams there")
    parser.add_argument(
        "--iou", type=float, nargs="+", default=defaults.iou_thresholds, help="a true positive has at least this IoU"
    )
    parser.add_argument("--bins", type=int, default=defaults.num_bins, help="number of bins of the score")
    parser.add_argument(
        "--score-threshold", type=float, default=defaults.score_threshold, help="lower scores do not enter calibration"
    )
    parser.add_argument("--per-class", action="store_true", help="also print every number of every class")
    return parser.parse_args(arguments)


def announce(what: str) -> None:
    """Say what takes time, where it does not mix with the result."""
    print(f"{what} ...", file=sys.stderr, flush=True)


def main(args: argparse.Namespace) -> None:
    """Print the tables, write the files."""
    try:
        settings = Settings(tuple(args.iou), args.bins, score_threshold=args.score_threshold)
    except ValueError as error:
        raise UserError(str(error)) from None
    announce(f"reading {args.ground_truth}")
    ground_truth = read_ground_truth(args.ground_truth)
    announce(f"reading {args.detections}")
    detections = read_detections(args.detections, ground_truth)
    announce(f"matching {len(detections)} detections in {len(ground_truth.image_ids)} images")
    matched = match_images(ground_truth, detections, settings)
    announce("counting")
    evaluation = evaluate(ground_truth, matched, settings)
    print(tables(evaluation, args.per_class))
    if args.output is not None:
        announce(f"writing {args.output}")
        write_report(evaluation, args.output)


if __name__ == "__main__":
    with one_sentence_errors():
        main(parse())
