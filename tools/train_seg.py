"""Train a segmentor: a baseline, a member of an ensemble, or a student that learns its uncertainty.

    distilled-uncertainty train-seg quick/streets_member.py
    distilled-uncertainty train-seg deeplabv3plus_r18_cityscapes-768x768_student.py --work-dir runs/student --resume
    torchrun --nproc_per_node 4 --no-python distilled-uncertainty train-seg my_student.py --launcher pytorch

A config is a file, or a name in configs/dudes. The arguments are those of mmsegmentation's own tools/train.py.
"""

import argparse
from collections.abc import Sequence

from uncertainty_core.cli import echo, program
from uncertainty_core.cli.segmentor_flags import check_segmentor_arguments, segmentor_parser


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = segmentor_parser(__doc__)
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint in --work-dir")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and print where the weights are."""
    args = build_parser().parse_args(argv)
    with program(args):
        check_segmentor_arguments(args.config)
        from dudes_mmseg.cli import build_config
        from dudes_mmseg.engine.rehearsal import rehearse
        from dudes_mmseg.engine.training import train, use_mixed_precision

        cfg = build_config(args)
        if args.amp:
            use_mixed_precision(cfg)
        rehearse(cfg)
        echo(f"weights: {train(cfg, args.resume)}")


if __name__ == "__main__":
    main()
