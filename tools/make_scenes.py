"""Write drawn scenes as a COCO-format data set of any size.

    distilled-uncertainty make-scenes --output scenes --split train --num-images 2000
    distilled-uncertainty train-net --config-file ddn_R50.yaml --train-json scenes/instances_train.json \\
        --train-images scenes/train ...

The sets scenes_train, scenes_val and scenes_test need no such command: they are written when first used.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uncertainty_core.cli import add_common_flags, check_at_least, echo, program
from uncertainty_core.cli.flags import check_detectron2


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="made if need be")
    parser.add_argument("--split", default="train", help="any name; splits share no scene (default: %(default)s)")
    parser.add_argument("--num-images", required=True, type=int, help="how many scenes")
    parser.add_argument("--seed", type=int, default=0, help="of all drawings (default: %(default)s)")
    add_common_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the split."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_at_least(parser, args, 1, "num_images")
    with program(args):
        check_detectron2()
        args.output.mkdir(parents=True, exist_ok=True)
        from ddn_detectron2.data import write_scenes

        echo(write_scenes(args.output, args.split, args.num_images, args.seed))


if __name__ == "__main__":
    main()
