"""Draw streets as a data set in Cityscapes' folders, files and label ids: for tests and trials, no download needed.

    distilled-uncertainty make-street-scenes data/streets
    distilled-uncertainty make-street-scenes data/big --train 2000 --val 200 --test 500 --size 512 256

The folder is the `data_root` of a `CityscapesDataset`. What is there already is kept, so an interrupted run goes on;
more of a split may be asked for later, another size or seed needs another folder.
"""

import argparse
from collections.abc import Sequence

from uncertainty_core.cli import echo, program

SPLITS = ("train", "val", "test")


def build_parser() -> argparse.ArgumentParser:
    """The command line; numbers that are not given are those of the quick configs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="made if need be")
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=int, metavar="N", help="streets (default: as many as quick configs use)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("W", "H"), help="pixels (default: that of quick configs)")
    parser.add_argument("--seed", type=int, default=0, help="of all drawings (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show what the frameworks log, too")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, and print the folder."""
    args = build_parser().parse_args(argv)
    with program(args):
        from dudes_mmseg.data.street_folder import NUM_STREETS, SIZE, write_streets

        given = {split: getattr(args, split) for split in SPLITS if getattr(args, split) is not None}
        echo(write_streets(args.folder, NUM_STREETS | given, args.size or SIZE, args.seed))


if __name__ == "__main__":
    main()
