"""Fit one temperature to the scores of any detector: the post-hoc rival of distillation.

    python tools/fit_temperature.py val.json val_detections.json
    python tools/fit_temperature.py val.json val_detections.json --apply test_detections.json --output scaled.json

takes COCO ground truth and COCO results of a validation set, prints the T for which sigmoid(logit(score) / T) says
best whether a detection is a true positive, and applies it to other results if asked to. With this package's detectors,
T can be MODEL.DDN.TEST.TEMPERATURE instead. The order of detections stays, and with it AP. Never fit on the images
that you report.
"""

import argparse
import json
import sys
from pathlib import Path

from uncertainty_core.detection import Settings, read_detections, read_ground_truth
from uncertainty_core.detection.temperature import fit_to_detections, scale_results


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ground_truth", type=Path, metavar="val.json", help="COCO annotations")
    parser.add_argument("detections", type=Path, metavar="val_detections.json", help="COCO results for them")
    parser.add_argument("--iou", type=float, default=0.5, help="a true positive has at least this IoU")
    parser.add_argument(
        "--score-threshold", type=float, default=Settings().score_threshold, help="lower scores are not looked at"
    )
    parser.add_argument("--apply", type=Path, metavar="FILE", help="COCO results to rescale")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write what --apply gives")
    args = parser.parse_args(arguments)
    if (args.apply is None) != (args.output is None):
        parser.error("--apply and --output go together")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse_args(arguments)
    try:
        ground_truth = read_ground_truth(args.ground_truth)
        detections = read_detections(args.detections, ground_truth)
        temperature = fit_to_detections(ground_truth, detections, args.iou, args.score_threshold)
        print(f"temperature {temperature:.4f}")
        if args.apply is not None:
            results = json.loads(args.apply.read_text(encoding="utf-8"))
            args.output.write_text(json.dumps(scale_results(results, temperature)), encoding="utf-8")
            print(f"wrote {args.output}")
    except (ValueError, OSError, KeyError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
