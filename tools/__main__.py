"""Distil the uncertainty of detectors, segmentors and classifiers into students that need one pass.

    distilled-uncertainty classification run --config quick/digits.yaml
    distilled-uncertainty distill-detector --config-file my_detector.yaml --ddn ...
    distilled-uncertainty COMMAND --help

From a checkout, `python tools/train_net.py` is the same as `distilled-uncertainty train-net`.
"""

import argparse
import ast
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from uncertainty_core import __version__
from uncertainty_core.cli.configs import CONFIGS
from uncertainty_core.errors import did_you_mean

PROGRAM = "distilled-uncertainty"


def commands() -> dict[str, str]:
    """The module of each command: the tools beside this file, and the packages that run by themselves."""
    package = f"{__package__}." if __package__ else ""  # `python tools` runs this file outside a package
    tools = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    packages = {"classification": "classification.__main__", "report": "uncertainty_core.report.__main__"}
    return packages | {tool.replace("_", "-"): package + tool for tool in tools}


def summary(module: str) -> str:
    """What a module's docstring begins with, read without importing the module."""
    source = Path(find_spec(module).origin).read_text(encoding="utf-8")
    first_line = ast.get_docstring(ast.parse(source)).splitlines()[0]
    return first_line.partition(":")[0].removesuffix(".")


def build_parser(modules: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line without a command."""
    width = max(map(len, modules))
    lines = [f"  {name:<{width}}  {summary(module)}" for name, module in modules.items()]
    where = f"Configs are your own, or go by their names in {CONFIGS / 'TASK'}."
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND ...",
        description=__doc__,
        epilog="\n".join(["commands:", *lines, "", where]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names, with the other arguments."""
    argv = sys.argv[1:] if argv is None else list(argv)
    modules = commands()
    if argv and argv[0] in modules:
        name, *arguments = argv
        sys.argv = [f"{PROGRAM} {name}", *arguments]  # a tool's usage begins with it
        importlib.import_module(modules[name]).main(arguments)
        return
    parser = build_parser(modules)
    if argv and not argv[0].startswith("-"):
        parser.error(f"there is no command {argv[0]!r}{did_you_mean(argv[0], modules)}")
    parser.parse_args(argv or ["--help"])


if __name__ == "__main__":
    main()
