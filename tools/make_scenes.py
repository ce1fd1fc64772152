"""Write drawn scenes as a COCO-format data set of any size.

    python tools/make_scenes.py --output scenes --split train --num-images 2000
    python tools/train_net.py --config-file ddn_R50.yaml --train-json scenes/instances_train.json \\
        --train-images scenes/train ...

The sets scenes_train, scenes_val and scenes_test need no such command: they are written when first used.
"""

import argparse
from pathlib import Path

from ddn_detectron2.data import write_scenes
from uncertainty_core.errors import one_sentence_errors


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="made if need be")
    parser.add_argument("--split", default="train", help="any name; splits share no scene (default: %(default)s)")
    parser.add_argument("--num-images", required=True, type=int, help="how many scenes")
    parser.add_argument("--seed", type=int, default=0, help="of all drawings (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.num_images < 1:
        parser.error(f"--num-images must be at least 1, got {args.num_images}")
    return args


def main(args: argparse.Namespace) -> None:
    """Write the split."""
    print(write_scenes(args.output, args.split, args.num_images, args.seed))


if __name__ == "__main__":
    with one_sentence_errors():
        main(parse())
