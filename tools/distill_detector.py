"""Distil a detector and compare: baseline, teachers and the student, plain and with fitted calibrators.

    distilled-uncertainty distill-detector --config-file quick/ddn_small.yaml \\
        --baseline-config quick/baseline_small.yaml --fit-on scenes_val OUTPUT_DIR demo/detection
    distilled-uncertainty distill-detector --config-file my.yaml --ddn --train-json train.json --train-images train/ \\
        --val-json val.json --val-images val/ --test-json test.json --test-images test/ \\
        MODEL.WEIGHTS my_detector.pth OUTPUT_DIR distilled

Without --baseline-config, MODEL.WEIGHTS is distilled. Finished steps are not repeated: start it again after a crash.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import Steps, check_at_least, echo, program, silent
from uncertainty_core.cli.flags import add_unlabelled, check_detector_arguments, detector_parser
from uncertainty_core.recalibration.recipes import Recipe

CALIBRATORS = "temperature,class-wise-isotonic-iou"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = detector_parser(__doc__)
    add_unlabelled(parser)
    parser.add_argument(
        "--baseline-config",
        metavar="FILE",
        help="train this detector first, and distil it; of KEY VALUE it takes DATASETS.TRAIN and SEED alone: "
        "the others, such as SOLVER.*, are for the students",
    )
    parser.add_argument("--also", action="append", default=[], metavar="FILE", help="another student; may be repeated")
    parser.add_argument(
        "--fit-on",
        metavar="NAME",
        help="held-out data set for calibrators (default: custom_val, where there is a test set besides)",
    )
    parser.add_argument(
        "--calibrators",
        default=CALIBRATORS,
        metavar="NAME,...",
        help="what to fit to each predictor: temperature, platt, beta, histogram, isotonic or linear, with class-wise- "
        "before and -iou behind as wanted (default: %(default)s)",
    )
    parser.add_argument(
        "--pictures", type=int, default=8, help="how many images to draw of each student (default: %(default)s)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start over what other settings have made; measure all anew"
    )
    return parser


def recipes(names: str) -> list[Recipe]:
    """Those that are named, with commas between; raises UserError."""
    return [Recipe.parse(name) for name in names.split(",") if name]


def distil_and_compare(args: argparse.Namespace) -> None:
    """Run the steps that are missing, print the table; what each of the processes does."""
    from detectron2.utils import comm

    from ddn_detectron2.cli import build_config, check_datasets, read_config, setup
    from ddn_detectron2.config import ConfigError
    from ddn_detectron2.convert import is_ddn
    from ddn_detectron2.engine import pipeline
    from ddn_detectron2.schedule import schedule_text
    from uncertainty_core.report.markdown import comparison

    cfg = setup(args)
    output = Path(cfg.OUTPUT_DIR)
    if args.fit_on is None and args.val_json and args.test_json:
        args.fit_on = "custom_val"
    if args.fit_on is not None:
        check_datasets(cfg, (*cfg.DATASETS.TEST, args.fit_on))
    if len(cfg.DATASETS.TEST) != 1 or args.fit_on in cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST must name one data set, and not the one of --fit-on: it is what is reported")
    configs = {Path(args.config_file).stem: cfg}
    for name in args.also:
        configs[Path(name).stem] = build_config(argparse.Namespace(**vars(args) | {"config_file": name}))
    for student in configs.values():
        if not is_ddn(student):
            raise ConfigError("a config describes a plain detector: add --ddn, or take one of the ddn_* configs")
        check_datasets(student, student.DATASETS.TRAIN)
    baseline = None
    if args.baseline_config:
        baseline = pipeline.with_settings(
            read_config(args.baseline_config, args.trust_config), DATASETS__TRAIN=cfg.DATASETS.TRAIN, SEED=cfg.SEED
        )
    if comm.is_main_process():
        pipeline.check(baseline, configs, output, args.overwrite)
        if args.ddn:
            echo(schedule_text(cfg))
        if baseline is not None and any(key.startswith("SOLVER.") for key in args.opts[::2]):
            echo(f"SOLVER.* options are for the students: the baseline is trained as {args.baseline_config} has it")
    comm.synchronize()
    calibrators = args.calibrators if args.fit_on is not None else []
    steps = Steps(pipeline.num_steps(configs, bool(args.baseline_config), len(calibrators)))
    step = steps if comm.is_main_process() else silent
    origin = None
    if baseline is not None:
        origin = pipeline.training_settings(baseline)
        weights = pipeline.train(baseline, output / "baseline", step)
        configs = {name: pipeline.with_settings(student, MODEL__WEIGHTS=weights) for name, student in configs.items()}
    students = {name: pipeline.distil(student, output / name, step, origin) for name, student in configs.items()}
    first = next(iter(configs))
    with_teachers = next((student for student in configs.values() if student.MODEL.DDN.TEACHER.WEIGHTS), configs[first])
    rows = pipeline.compare(with_teachers, students, output, args.fit_on, calibrators, args.pictures, step)
    if comm.is_main_process():
        runs = pipeline.write_comparison(rows, output)
        echo(f"\n{comparison(runs)}\n\nCalibration at IoU 0.5: {output / 'comparison.json'}")
        echo(f"Curves: {output / 'reliability.png'}")
        echo(f"Images whose scores changed most: {output / 'rows' / first / 'pictures'}")
        echo(f"One page of it all: {output / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> None:
    """Distil and compare."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_at_least(parser, args, 1, "pictures")
    with program(args):
        args.calibrators = recipes(args.calibrators)
        more = [args.baseline_config] if args.baseline_config else []
        check_detector_arguments(args, *more, *args.also)
        from ddn_detectron2.cli import launch

        launch(distil_and_compare, args)


if __name__ == "__main__":
    main()
