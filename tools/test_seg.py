"""Evaluate a segmentor on its test set: a baseline, an ensemble, Monte-Carlo dropout, or a student.

    distilled-uncertainty test-seg quick/streets_student.py work_dirs/streets_student/iter_400.pth
    distilled-uncertainty test-seg quick/streets_teacher.py

Prints what the config's test_evaluator measures, and writes it to metrics.json in the work dir. A teacher has its
checkpoints in its config. The arguments are those of mmsegmentation's own tools/test.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import echo, program
from uncertainty_core.cli.segmentor_flags import check_segmentor_arguments, segmentor_parser


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = segmentor_parser(__doc__)
    parser.add_argument("checkpoint", nargs="?", help="weights; a teacher has its own")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation: the config's tta_pipeline")
    parser.add_argument("--out", metavar="DIR", help="write predicted classes there, as PNG")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the values."""
    args = build_parser().parse_args(argv)
    with program(args):
        check_segmentor_arguments(args.config, checkpoints=(args.checkpoint,))
        from dudes_mmseg.cli import build_config
        from dudes_mmseg.engine.evaluation import evaluate, use_test_time_augmentation, write_predictions

        cfg = build_config(args)
        if args.tta:
            use_test_time_augmentation(cfg)
        if args.out:
            write_predictions(cfg, args.out)
        metrics = evaluate(cfg, args.checkpoint)
        width = max(map(len, metrics))
        for name, value in metrics.items():
            echo(f"{name:<{width}}  {value:.4f}")
        echo(f"written to {Path(cfg.work_dir) / 'metrics.json'}")


if __name__ == "__main__":
    main()
