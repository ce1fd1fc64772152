"""Draw streets as a data set in Cityscapes' folders, files and label ids: for tests and trials, no download needed.

    python tools/make_street_scenes.py data/streets
    python tools/make_street_scenes.py data/big --train 2000 --val 200 --test 500 --size 512 256

The folder is the `data_root` of a `CityscapesDataset`. What is there already is kept, so an interrupted run goes on;
more of a split may be asked for later, another size or seed needs another folder.
"""

import argparse

from dudes_mmseg.data import NUM_STREETS, write_streets
from dudes_mmseg.data.street_folder import SIZE
from uncertainty_core.errors import one_sentence_errors


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="made if need be")
    for split, number in NUM_STREETS.items():
        parser.add_argument(f"--{split}", type=int, default=number, metavar="N", help="streets (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=SIZE, metavar=("W", "H"), help="pixels (default: {} {})".format(*SIZE)
    )
    parser.add_argument("--seed", type=int, default=0, help="of all drawings (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    args = parse()
    with one_sentence_errors():
        print(write_streets(args.folder, {split: getattr(args, split) for split in NUM_STREETS}, args.size, args.seed))
