"""Check a Cityscapes folder before a training: what is missing, how to make it and where to get it.

    distilled-uncertainty check-cityscapes data/cityscapes
    distilled-uncertainty check-cityscapes data/cityscapes --deep

Ends with 0 if all is there, and with 1 if not.
"""

import argparse
import sys
from collections.abc import Sequence

from uncertainty_core.cli import echo, program


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", help="the folder that holds leftImg8bit and gtFine")
    parser.add_argument("--deep", action="store_true", help="read every file, too; takes minutes")
    parser.add_argument("--verbose", action="store_true", help="show what the frameworks log, too")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the problems, if any."""
    args = build_parser().parse_args(argv)
    with program(args):
        from dudes_mmseg.data.cityscapes_tree import NUM_IMAGES, check_cityscapes

        problems = check_cityscapes(args.data_root, args.deep, progress=True)
        for problem in problems:
            echo(problem)
        if not problems:
            counts = ", ".join(f"{number} images of {split}" for split, number in NUM_IMAGES.items())
            echo(f"{args.data_root} is complete: {counts}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
