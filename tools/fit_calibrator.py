"""Fit a calibrator to any detector, or to a segmentor: the post-hoc rival of distillation.

Detection (the default):

    distilled-uncertainty fit-calibrator val.json val_detections.json
    distilled-uncertainty fit-calibrator val.json val_detections.json --method isotonic --class-wise --target iou \\
        --apply test_detections.json --output calibrated.json

takes COCO ground truth and COCO results of a validation set. It prints what the calibrator does to one half of the
images when fitted to the other, then fits it to all, and writes it to calibrator.json, which this package's detectors
take as MODEL.DDN.TEST.CALIBRATOR. --apply writes other results with calibrated scores; those before are kept as
"score_before", and decide what counts. Never fit on the images that you report.

--target box leaves scores alone, and fits one factor to the deviations of boxes ("box_std"): intervals of 90 % then
cover 90 % of the sides of held-out boxes.

Segmentation:

    distilled-uncertainty fit-calibrator --task segmentation my_student.py iter_80000.pth --uncertainty platt

fits to pixels of the validation images, drawn at random. It prints what the calibrator that is fitted to one half of
the images does to the other, and writes it for model.calibrator; that of --uncertainty, from the uncertainty to the
probability of an error, is for model.uncertainty_calibrator. A teacher has its checkpoints in its config.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import add_common_flags, check_at_least, echo, parse_task, program
from uncertainty_core.cli.console import echo_error
from uncertainty_core.cli.segmentor_flags import check_segmentor_arguments, segmentor_parser
from uncertainty_core.detection import Settings
from uncertainty_core.errors import UserError
from uncertainty_core.io.files import write_text
from uncertainty_core.recalibration.recipes import CLASS_METHODS, FILE, METHODS, N_MIN, Recipe

FEW_HITS = 50
TASKS = ("detection", "segmentation")


def build_parser(task: str = TASKS[0]) -> argparse.ArgumentParser:
    """The command line for one of the tasks."""
    parser = detection_parser() if task == "detection" else segmentation_parser()
    parser.add_argument("--task", choices=TASKS, default=task, help="what is calibrated (default: detection)")
    parser.add_argument(
        "--calibrator", type=Path, default=Path(FILE), metavar="FILE", help="where to write it (default: %(default)s)"
    )
    return parser


def segmentation_parser() -> argparse.ArgumentParser:
    """A config and a checkpoint, as mmsegmentation's own tools take them."""
    parser = segmentor_parser(__doc__)
    parser.add_argument("checkpoint", nargs="?", help="weights; a teacher has its own")
    parser.add_argument("--method", choices=CLASS_METHODS, default="temperature", help="default: %(default)s")
    parser.add_argument("--uncertainty", choices=METHODS, help="also calibrate the uncertainty, by this method")
    parser.add_argument(
        "--uncertainty-calibrator",
        type=Path,
        default=Path(f"uncertainty_{FILE}"),
        metavar="FILE",
        help="where to write what --uncertainty gives (default: %(default)s)",
    )
    parser.add_argument(
        "--fit-on", choices=("val", "train"), default="val", help="images to fit to (default: %(default)s)"
    )
    parser.add_argument(
        "--pixels", type=int, default=10**6, metavar="N", help="how many to draw (default: %(default)s)"
    )
    return parser


def detection_parser() -> argparse.ArgumentParser:
    """COCO files, and what a score is to tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ground_truth", type=Path, metavar="val.json", help="COCO annotations")
    parser.add_argument("detections", type=Path, metavar="val_detections.json", help="COCO results for them")
    parser.add_argument("--method", choices=METHODS, default="temperature", help="default: %(default)s")
    parser.add_argument("--class-wise", action="store_true", help="fit each class by itself")
    parser.add_argument(
        "--n-min",
        type=int,
        default=N_MIN,
        metavar="N",
        help="classes with fewer detections share the fit of all (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        choices=("hit", "iou", "box"),
        default="hit",
        help="what a score is to tell: hit or miss, or the IoU with the box found, 0 for a miss; box: see above "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--iou", type=float, help="a hit has at least this IoU (default: 0.5; with --target iou any overlap is one)"
    )
    parser.add_argument(
        "--score-threshold", type=float, default=Settings().score_threshold, help="lower scores are not looked at"
    )
    parser.add_argument("--apply", type=Path, metavar="FILE", help="COCO results to calibrate")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write what --apply gives")
    add_common_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, print the table, write the files."""
    words = sys.argv[1:] if argv is None else argv
    parser, args = parse_task(words, TASKS, build_parser)
    if args.task == "segmentation":
        check_at_least(parser, args, 1, "pixels")
    else:
        check_at_least(parser, args, 1, "n_min")
        if (args.apply is None) != (args.output is None):
            parser.error("--apply and --output go together")
    with program(args):
        (fit_segmentor if args.task == "segmentation" else fit_detector)(args)


def fit_segmentor(args: argparse.Namespace) -> None:
    """Fit to pixels of held-out images."""
    check_segmentor_arguments(args.config, checkpoints=(args.checkpoint,))
    from dudes_mmseg.cli import build_config
    from dudes_mmseg.engine.held_out import fit_held_out
    from uncertainty_core.recalibration import save

    cfg = build_config(args)
    fits = fit_held_out(cfg, args.checkpoint, args.fit_on, args.pixels, args.method, args.uncertainty)
    for fitted, path in zip(fits, (args.calibrator, args.uncertainty_calibrator), strict=False):
        echo(fitted.table)
        save(fitted.calibrator, path)
        echo(f"wrote {path}, fitted to {fitted.pixels:,} pixels of all {args.fit_on} images")


def fit_detector(args: argparse.Namespace) -> None:
    """Fit to COCO results."""
    # files are read, and refused, before torch is imported
    from uncertainty_core.detection import read_detections, read_ground_truth
    from uncertainty_core.detection.coco_format import read_scores

    ground_truth = read_ground_truth(args.ground_truth)
    detections = read_detections(args.detections, ground_truth)
    if args.apply is not None:
        results, _ = read_scores(args.apply)
        warn_of_overlap(results, json.loads(args.detections.read_bytes()), args.apply)
    from uncertainty_core.recalibration import apply_to_results, fit_to_boxes, fit_to_detections, save

    try:
        if args.target == "box":
            hold_out_boxes(ground_truth, detections, args.score_threshold)
            calibrator = fit_to_boxes(ground_truth, detections, score_threshold=args.score_threshold)
            echo(f"factor {calibrator.factor:.4f}")
        else:
            recipe = Recipe(args.method, args.class_wise, args.target, args.n_min)
            settings = recipe, args.iou, args.score_threshold
            hold_out(ground_truth, detections, *settings)
            calibrator = fit_to_detections(ground_truth, detections, *settings)
            describe(calibrator, recipe)
    except ValueError as error:  # of --iou, --score-threshold, or where they leave nothing to fit to
        raise UserError(str(error)) from None
    save(calibrator, args.calibrator)
    echo(f"wrote {args.calibrator}, fitted to all {len(ground_truth.image_ids)} images")
    if args.apply is not None:
        write_text(args.output, json.dumps(apply_to_results(results, calibrator, ground_truth.category_ids)))
        echo(f"wrote {args.output}")


def hold_out(ground_truth, detections, recipe: Recipe, iou_threshold: float | None, score_threshold: float) -> None:
    """Print what the calibrator that is fitted to one half of the images does to the other."""
    from uncertainty_core.detection.coco_format import of_images
    from uncertainty_core.recalibration import before_and_after, fit_to_detections, fitted_half, samples

    reported = iou_threshold or 0.5
    hits = samples(ground_truth, detections, reported, score_threshold).hit
    few = min(hits.sum().item(), (~hits).sum().item())
    if few < FEW_HITS:
        echo_error(
            f"warning: of {len(hits)} detections {hits.sum()} are hits; with so few of a kind the fit is a guess"
        )
    chosen = fitted_half(ground_truth.image_ids)
    fitted, held_out = (of_images(ground_truth, detections, part) for part in (chosen, ~chosen))
    counts = [samples(*part, reported, score_threshold).hit for part in (fitted, held_out)]
    if not all(map(len, counts)):
        echo_error("warning: one half of the images has no detections, so that nothing is measured on held-out images")
        return
    calibrator = fit_to_detections(*fitted, recipe, iou_threshold, score_threshold)
    sizes = [len(truth.image_ids) for truth, _ in (fitted, held_out)]
    echo(f"{recipe.name}, fitted to {sizes[0]} images, on {sizes[1]} others; IoU {reported:g}, 95 % intervals:")
    echo(before_and_after(*held_out, calibrator, reported, score_threshold))


def hold_out_boxes(ground_truth, detections, score_threshold: float) -> None:
    """Print what the factor that is fitted to one half of the images does to the other."""
    from uncertainty_core.detection import evaluate, match_images
    from uncertainty_core.detection.coco_format import of_images
    from uncertainty_core.recalibration import fit_to_boxes, fitted_half, scale_boxes

    chosen = fitted_half(ground_truth.image_ids)
    fitted, held_out = (of_images(ground_truth, detections, part) for part in (chosen, ~chosen))
    factor = fit_to_boxes(*fitted, score_threshold=score_threshold)
    settings = Settings((0.5,), score_threshold=score_threshold)
    sizes = [len(truth.image_ids) for truth, _ in (fitted, held_out)]
    echo(f"deviations of boxes, factor {factor.factor:.4f} fitted to {sizes[0]} images, on {sizes[1]} others:")
    truth, found = held_out
    for name, of in (("before", found), ("after", scale_boxes(found, factor))):
        numbers = evaluate(truth, match_images(truth, of, settings), settings).box_std
        echo(f"  {name:8}" + ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()))


def describe(calibrator, recipe: Recipe) -> None:
    """Print the numbers of a calibrator that has few, and what to beware of."""
    if recipe.class_wise and calibrator.pooled:
        shared = ", ".join(calibrator.pooled[:5]) + (", ..." if len(calibrator.pooled) > 5 else "")
        echo(f"{len(calibrator.pooled)} of {calibrator.num_classes} classes have less than {recipe.n_min} detections "
             f"and share the fit of all: {shared}")  # fmt: skip
    numbers = {name: value for name, value in vars(calibrator).items() if isinstance(value, float)}
    if numbers:
        echo(", ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    if calibrator.at_bound:
        echo_error("warning: a slope is at its bound: there, higher scores do not find more; look at the detections")


def warn_of_overlap(results: list, fitted: list, path: Path) -> None:
    """Warn where results to be calibrated are among those that the calibrator is fitted to."""

    def keys(entries: list) -> set:
        return {
            json.dumps([entry.get(name) for name in ("image_id", "category_id", "bbox", "score")]) for entry in entries
        }

    common = keys(results) & keys(fitted)
    if common:
        echo_error(f"warning: {len(common)} detections of {path} are fitted to as well: do not report them")


if __name__ == "__main__":
    main()
