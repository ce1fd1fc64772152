"""The former name of fit-calibrator: ends with the command that replaces it.

    distilled-uncertainty fit-calibrator --method temperature val.json val_detections.json

writes the temperature to calibrator.json, and prints what it does to held-out images.
"""

import argparse
from collections.abc import Sequence


def build_parser() -> argparse.ArgumentParser:
    """The command line, which takes anything."""
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the command of today."""
    parser = build_parser()
    _, words = parser.parse_known_args(argv)
    parser.error(" ".join(["the command is now: distilled-uncertainty fit-calibrator --method temperature", *words]))


if __name__ == "__main__":
    main()
