"""Time for one image and size of segmentors: baselines, students and teachers, table 3 of DUDES.

    distilled-uncertainty benchmark-segmentor quick/streets_member.py quick/streets_student.py --shape 128 256
    distilled-uncertainty benchmark-segmentor my_baseline.py my_teacher.py my_student.py --checkpoints a.pth - b.pth

Configs may be any of mmsegmentation's. They take turns, so that a machine whose speed drifts slows all of them alike.
Without --checkpoints the weights are random, which changes no time; a teacher always reads those in its config.
"""

import argparse
from collections.abc import Sequence

from uncertainty_core.cli import check_at_least, echo, program
from uncertainty_core.cli.configs import find_config
from uncertainty_core.cli.segmentor_flags import check_segmentor_arguments, options_parser
from uncertainty_core.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = options_parser(__doc__)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="config files, or names of those in configs/dudes")
    parser.add_argument("--checkpoints", nargs="+", metavar="FILE", help="weights of each config; - for none")
    parser.add_argument(
        "--shape", nargs=2, type=int, default=(1024, 2048), metavar=("H", "W"), help="of the image (default: 1024 2048)"
    )
    parser.add_argument("--runs", type=int, default=25, help="timed ones of each segmentor (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="runs before (default: %(default)s)")
    parser.add_argument("--device", help="default: cuda where there is a GPU, else cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Build all, time all, print the table."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_at_least(parser, args, 2, "runs")  # there is a deviation to tell
    check_at_least(parser, args, 0, "warm_up")
    with program(args):
        checkpoints = [None if path == "-" else path for path in args.checkpoints or ["-"] * len(args.configs)]
        if len(checkpoints) != len(args.configs):
            raise UserError(
                f"--checkpoints names {len(checkpoints)} files for {len(args.configs)} configs: - means none"
            )
        check_segmentor_arguments(*args.configs, checkpoints=checkpoints)
        names = [find_config(config, "dudes").stem for config in args.configs]
        if len(set(names)) < len(names):
            raise UserError("each config must have a name of its own, for the table")
        import torch

        from dudes_mmseg.cli import read_config
        from dudes_mmseg.compat import silence
        from dudes_mmseg.inference.timing import (
            build_segmentor,
            milliseconds,
            number_of_parameters,
            prediction_of,
            table,
        )

        silence()
        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        models = {
            name: build_segmentor(read_config(config, args.cfg_options), checkpoint, device)
            for name, config, checkpoint in zip(names, args.configs, checkpoints, strict=True)
        }
        contenders = {name: prediction_of(model, *args.shape, device) for name, model in models.items()}
        times = milliseconds(contenders, args.runs, args.warm_up)
        where = torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
        height, width = args.shape
        echo(f"{height} x {width} pixels, {args.runs} alternating runs, {where}, torch {torch.__version__}")
        echo(table(times, {name: number_of_parameters(model) for name, model in models.items()}))


if __name__ == "__main__":
    main()
