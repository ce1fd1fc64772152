"""Distil a detector and compare: baseline, Monte-Carlo dropout, temperature scaling, and the student.

    python tools/distill_detector.py --config-file quick/ddn_small.yaml --baseline-config quick/baseline_small.yaml \\
        --fit-on scenes_val OUTPUT_DIR demo/detection
    python tools/distill_detector.py --config-file my.yaml --ddn --train-json train.json --train-images train/ \\
        --val-json val.json --val-images val/ --test-json test.json --test-images test/ --fit-on custom_val \\
        MODEL.WEIGHTS my_detector.pth OUTPUT_DIR distilled

Without --baseline-config, MODEL.WEIGHTS is distilled. Finished steps are not repeated: start it again after a crash.
"""

import argparse
from pathlib import Path

from detectron2.engine import launch

from ddn_detectron2.cli import argument_parser, build_config, check_datasets, read_config, setup
from ddn_detectron2.config import ConfigError
from ddn_detectron2.convert import is_ddn
from ddn_detectron2.engine.pipeline import compare, distil, table_text, train, with_settings, write_comparison
from uncertainty_core.errors import one_sentence_errors


def main(args):
    """Run the steps that are missing, print the table."""
    cfg = setup(args)
    output = Path(cfg.OUTPUT_DIR)
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
    weights = cfg.MODEL.WEIGHTS
    if args.baseline_config:
        baseline = with_settings(read_config(args.baseline_config), DATASETS__TRAIN=cfg.DATASETS.TRAIN, SEED=cfg.SEED)
        weights = train(baseline, output / "baseline")
    configs = {name: with_settings(student, MODEL__WEIGHTS=weights) for name, student in configs.items()}
    students = {name: distil(student, output / name) for name, student in configs.items()}
    first = next(iter(configs))
    rows = compare(configs[first], students, output, args.fit_on, args.pictures)
    write_comparison(rows, output)
    print(f"\n{table_text(rows)}\n\nCalibration at IoU 0.5. See {output / 'reliability.png'}, and in")
    pictures = output / "rows" / first / "pictures"
    print(f"{pictures} the images whose scores changed most; numbers: {output / 'comparison.json'}")
    print(f"One page of it all: python -m uncertainty_core.report {output / 'rows'} -o {output / 'report.html'}")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--baseline-config", metavar="FILE", help="train this detector first, and distil it")
    parser.add_argument("--also", action="append", default=[], metavar="FILE", help="another student; may be repeated")
    parser.add_argument("--fit-on", metavar="NAME", help="held-out data set for temperature scaling")
    parser.add_argument(
        "--pictures", type=int, default=8, help="how many images to draw of each student (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.pictures < 1:
        parser.error(f"--pictures must be at least 1, got {args.pictures}")
    with one_sentence_errors():
        launch(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))
