"""Compare evaluated predictors on one page.

    distilled-uncertainty report RUN_DIR [RUN_DIR ...] -o report.html

A RUN_DIR is a folder with a run.json, or one with such folders inside.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..cli import add_common_flags, echo, program


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="distilled-uncertainty report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder of one or several runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="the page (report.html)")
    parser.add_argument("--title", default="Comparison of predictors", help="its heading")
    add_common_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page and say where it is."""
    args = build_parser().parse_args(argv)
    with program(args):
        from ..io.files import write_text
        from .find import find_runs
        from .page import build_page

        runs = find_runs(args.runs)
        page = build_page(runs, args.title)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.output, page)
        echo(f"Look at {args.output}, which compares {len(runs)} {'run' if len(runs) == 1 else 'runs'}.")


if __name__ == "__main__":
    main()
