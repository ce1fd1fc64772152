"""Distil an ensemble and compare: baseline, ensemble and one-pass students, plain and with fitted calibrators.

    distilled-uncertainty distill-segmentor quick/streets_student.py --member-config quick/streets_member.py --members 4
    distilled-uncertainty distill-segmentor my_student.py --member-config my_member.py --members 10 --work-dir distilled

Trains the members, stores what they say about the training images, trains the student on it, and measures all of them
on the test set; the first member is the baseline. Calibrators are fitted to the validation images, or, where these are
the test images, to each half of them for the other. Finished steps are not repeated: start it again after a crash.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import Steps, check_at_least, echo, program
from uncertainty_core.cli.configs import find_config
from uncertainty_core.cli.segmentor_flags import add_folds, check_folds, check_segmentor_arguments, segmentor_parser
from uncertainty_core.io.images import find_images
from uncertainty_core.recalibration.recipes import CLASS_METHODS, class_methods

CALIBRATORS = "temperature,isotonic"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = segmentor_parser(__doc__)
    parser.add_argument("--member-config", required=True, metavar="FILE", help="a network of the ensemble")
    parser.add_argument("--members", type=int, default=10, metavar="N", help="how many (default: %(default)s)")
    add_folds(parser)
    parser.add_argument(
        "--unlabelled-images", metavar="DIR", help="a folder of images without labels, which students learn from, too"
    )
    parser.add_argument("--also", action="append", default=[], metavar="FILE", help="another student; may be repeated")
    parser.add_argument(
        "--calibrators",
        default=CALIBRATORS,
        metavar="NAME,...",
        help=f"what to fit to each predictor: {', '.join(CLASS_METHODS)}; '' for none (default: %(default)s)",
    )
    parser.add_argument(
        "--fit-on", choices=("val", "train"), default="val", help="images for calibrators (default: %(default)s)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start over what other settings have made, and measure all rows again"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Do all steps, print the tables, and write the report."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_at_least(parser, args, 2, "members")  # one network has nobody to differ from
    check_folds(parser, args)
    with program(args):
        calibrators = class_methods(args.calibrators)
        check_segmentor_arguments(args.config, args.member_config, *args.also)
        if args.unlabelled_images is not None:
            find_images(Path(args.unlabelled_images))
        from dudes_mmseg.cli import build_config, read_config
        from dudes_mmseg.data import with_unlabelled_images
        from dudes_mmseg.engine import pipeline
        from dudes_mmseg.engine.calibrators import check_calibrators
        from uncertainty_core.report.markdown import comparison

        cfg = build_config(args)
        output = Path(cfg.work_dir)
        member = read_config(args.member_config, args.cfg_options)
        students = {find_config(args.config, "dudes").stem: cfg}
        students |= {find_config(name, "dudes").stem: read_config(name, args.cfg_options) for name in args.also}
        if args.unlabelled_images is not None:
            found = students.items()
            students = {name: with_unlabelled_images(student, args.unlabelled_images) for name, student in found}
        if calibrators:
            check_calibrators([member, *students.values()], args.fit_on)
        step = Steps(pipeline.num_steps(students, args.members, len(calibrators)))
        ensemble = pipeline.Ensemble(args.members, args.folds)
        teacher, trained = pipeline.distil(member, students, ensemble, output, step, args.overwrite)
        compared = member, teacher, students, trained, output, calibrators, args.fit_on
        runs = pipeline.compare(*compared, step, args.overwrite)
        first = next(iter(students))
        echo(f"\n{comparison(runs)}\n\n{pipeline.classes_text(runs, first)}\n")
        echo(f"report: {pipeline.write_report(runs, output)}")
        echo(f"curves: {pipeline.draw_sparsification(runs, output)}")
        echo(f"pictures of image, truth, prediction, errors and uncertainty: {output / 'rows' / first / 'uncertainty'}")


if __name__ == "__main__":
    main()
