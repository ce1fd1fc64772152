"""Check a Cityscapes folder before a training: what is missing, how to make it and where to get it.

    python tools/check_cityscapes.py data/cityscapes
    python tools/check_cityscapes.py data/cityscapes --deep

Ends with 0 if all is there, and with 1 if not.
"""

import argparse
import sys

from dudes_mmseg.data.cityscapes_tree import NUM_IMAGES, check_cityscapes


def main() -> int:
    """Print the problems, if any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", help="the folder that holds leftImg8bit and gtFine")
    parser.add_argument("--deep", action="store_true", help="read every file, too; takes minutes")
    args = parser.parse_args()
    problems = check_cityscapes(args.data_root, args.deep, progress=True)
    for problem in problems:
        print(problem)
    if not problems:
        counts = ", ".join(f"{number} images of {split}" for split, number in NUM_IMAGES.items())
        print(f"{args.data_root} is complete: {counts}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
