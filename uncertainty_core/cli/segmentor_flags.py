"""mmsegmentation's own flags and this project's, declared and checked without importing mmsegmentation."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .configs import check_config, find_config, package_folder
from .program import add_common_flags, check_at_least

CONFIG_HELP = "a config file, or the name of one in configs/dudes"


def options_parser(description: str) -> argparse.ArgumentParser:
    """Values of the config, and the flags of every program."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), type=_assignment, metavar="KEY=VALUE", help="override config values"
    )
    add_common_flags(parser)
    return parser


def segmentor_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of mmsegmentation's own tools that train or test: the config, its folder and its processes."""
    parser = options_parser(description)
    parser.add_argument("config", help=CONFIG_HELP)
    parser.add_argument("--work-dir", metavar="DIR", help="logs, checkpoints, results; work_dirs/<config> by default")
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="what started the processes (default: %(default)s)",
    )
    # torch.distributed.launch passes it under either name
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def add_folds(parser: argparse.ArgumentParser) -> None:
    """The flag for members that leave images out; see `check_folds`."""
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="member n never sees fold n modulo K of the images, and the targets of an image come from members that "
        "never saw it; needs 2K members (default: all see all)",
    )


def check_folds(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program with a usage error unless each fold is left out by two of the members, who can differ."""
    if args.folds == 0:
        return
    check_at_least(parser, args, 2, "folds")
    if args.members < 2 * args.folds:
        parser.error(f"--folds {args.folds} needs --members {2 * args.folds} or more: two judges of each image")


def _assignment(text: str) -> str:
    """KEY=VALUE as it is: mmengine reads the value."""
    if not text.partition("=")[0] or "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return text


def check_segmentor_arguments(*configs: str, checkpoints: Sequence[str | None] = ()) -> None:
    """Raise UserError for a mistake in the files of a command line that can be seen without mmsegmentation.

    Args:
        configs: names as `find_config` takes them.
        checkpoints: paths; None for one that was not given.
    """
    if package_folder("mmseg") is None:
        raise UserError("mmsegmentation is not installed: see README, 'Installing into an environment of your own'")
    for name in configs:
        check_config(find_config(name, "dudes"), "dudes")
    for checkpoint in checkpoints:
        if checkpoint is not None and not Path(checkpoint).is_file():
            raise UserError(f"there is no checkpoint {checkpoint}")
