"""Average precision and calibration of detections of any framework: COCO ground truth and COCO results, two files.

    distilled-uncertainty evaluate-detections gt.json detections.json --output report

prints AP and AR in percent and, at each IoU threshold, the calibration of the scores in plain values; --output adds
calibration.json, the bins as JSON, reliability diagrams, and run.json, which distilled-uncertainty report compares with
those of other detectors.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import add_common_flags, check_at_least, echo, log_to, program
from uncertainty_core.cli.console import echo_error
from uncertainty_core.detection import Settings
from uncertainty_core.detection.settings import PROTOCOLS
from uncertainty_core.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ground_truth", type=Path, metavar="gt.json", help="COCO annotations")
    parser.add_argument("detections", type=Path, metavar="detections.json", help="COCO results: a list of scored boxes")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write JSON and reliability diagrams there")
    parser.add_argument("--name", help="of the detector in a report (default: that of the detections' file)")
    parser.add_argument("--passes", type=int, default=1, help="forward passes that it takes for one image (default: 1)")
    parser.add_argument(
        "--iou", type=float, nargs="+", default=defaults.iou_thresholds, help="a true positive has at least this IoU"
    )
    parser.add_argument("--bins", type=int, default=defaults.num_bins, help="number of bins of the score")
    parser.add_argument(
        "--score-threshold", type=float, default=defaults.score_threshold, help="lower scores do not enter calibration"
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=defaults.protocol,
        help="fiveai: LaECE and LaACE as fiveai/detection_calibration computes them (default: %(default)s)",
    )
    parser.add_argument(
        "--federated",
        action=argparse.BooleanOptionalAction,
        help="refuse annotations that are not federated, as those of LVIS are, or those that are; by default each file "
        "is taken as what it is",
    )
    parser.add_argument("--per-class", action="store_true", help="also print every number of every class")
    add_common_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, write the files."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_at_least(parser, args, 1, "passes")
    with program(args):
        try:
            settings = Settings(
                tuple(args.iou),
                args.bins,
                score_threshold=args.score_threshold,
                protocol=args.protocol,
                federated=args.federated,
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        # files are read, and refused, before torch is imported
        from uncertainty_core.detection import check_federated, read_detections, read_ground_truth

        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as odd:
            warnings.simplefilter("always")
            ground_truth = read_ground_truth(args.ground_truth)
            check_federated(ground_truth, settings.federated)
            detections = read_detections(args.detections, ground_truth)
        if args.output is not None:
            args.output.mkdir(parents=True, exist_ok=True)
            log_to(args.output / "log.txt")
        # not where the tables go
        for warning in odd:
            echo_error(f"warning: {warning.message}")
        if not len(detections):
            echo_error("warning: there are no detections, so that AP is 0 and calibration undefined")
        echo_error(f"matching {len(detections)} detections in {len(ground_truth.image_ids)} images")
        from uncertainty_core.detection import evaluate, match_images, tables, write_report
        from uncertainty_core.report.detectors import images_of, run_record
        from uncertainty_core.report.run_record import Data, Provenance
        from uncertainty_core.targets.hashing import file_sha256

        evaluation = evaluate(ground_truth, match_images(ground_truth, detections, settings), settings)
        echo(tables(evaluation, args.per_class))
        if args.output is not None:
            write_report(evaluation, args.output)
            fingerprint = file_sha256(args.ground_truth)[:16]
            data = Data(args.ground_truth.stem, fingerprint, len(ground_truth.image_ids))
            provenance = Provenance.of_this_process(None, data, time.perf_counter() - start)
            record = run_record(args.name or args.detections.stem, args.passes, evaluation, provenance)
            record.write(args.output, images_of(evaluation))
            echo_error(f"written to {args.output}")


if __name__ == "__main__":
    main()
