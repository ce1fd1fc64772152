"""How a program starts and ends: its threads, what it prints, and errors in one sentence."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NoReturn

from ..errors import UserError
from . import interrupts
from .console import echo_error, log_path, quiet

INTERRUPTED = 130  # what a shell reports of a program that SIGINT ended


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """`--threads` and `--verbose`, which every program that runs a network has."""
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processor threads of each process (default: 1 without a GPU)"
    )
    parser.add_argument("--verbose", action="store_true", help="show what the frameworks log, too")


def parse_task(
    words: Sequence[str], tasks: Sequence[str], build_parser: Callable[[str], argparse.ArgumentParser]
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The parser and arguments of a program whose flags depend on `--task`; the first of `tasks` is the default.

    Without a task, --help explains all of them.
    """
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--task", choices=tasks)
    task = chooser.parse_known_args(words)[0].task
    if task is None and {"-h", "--help"} & set(words):
        for task in tasks:
            print(f"--task {task}\n\n{build_parser(task).format_help()}")
        raise SystemExit(0)
    parser = build_parser(task or tasks[0])
    return parser, parser.parse_args(words)


def check_at_least(parser: argparse.ArgumentParser, args: argparse.Namespace, least: int, *names: str) -> None:
    """End the program with a usage error where one of these flags, such as "num_images", is too small."""
    for name in names:
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(args, name)}")


def device_text(device: object) -> str:
    """What computes, such as "device cpu, 1 processor thread (--threads)"."""
    import torch

    threads = torch.get_num_threads()
    return f"device {device}, {threads} processor thread{'s' * (threads > 1)} (--threads)"


@contextmanager
def program(args: argparse.Namespace) -> Iterator[None]:
    """Run a program's work. Errors that its user can mend end it with one sentence and exit code 2.

    SIGINT ends it with one sentence and exit code 130. Other errors keep their tracebacks. Frameworks are imported
    inside: what they print goes to the log (`console.log_to`), which is named at the end, unless `args.verbose`.
    """
    with interrupts.noticing(), quiet() if _is_quiet(args) else nullcontext():
        try:
            if hasattr(args, "threads"):
                _set_threads(args.threads)
            yield
        except (KeyboardInterrupt, Exception) as error:
            # what C code makes of a KeyboardInterrupt may be any error, and we a sentence of that
            if interrupts.received() or isinstance(error, KeyboardInterrupt):
                again = "the same command" if getattr(args, "resume", True) else "the same command with --resume"
                _end(f"interrupted; {again} goes on", INTERRUPTED)
            if isinstance(error, UserError):
                _end(f"error: {error}", 2)
            if isinstance(error, OSError) and error.filename is not None:
                _end(f"error: {error.filename}: {error.strerror or error}", 2)
            _name_log()  # what led to the traceback that follows
            raise
        _name_log()


def _is_quiet(args: argparse.Namespace) -> bool:
    """Unless asked for otherwise, or where Detectron2 starts processes, which write as they do everywhere."""
    processes = max(getattr(args, name, 1) for name in ("num_gpus", "num_machines"))
    return not getattr(args, "verbose", True) and processes == 1


def _end(sentence: str, code: int) -> NoReturn:
    echo_error(sentence)
    _name_log()
    sys.exit(code)


def _name_log() -> None:
    if (log := log_path()) is not None:
        echo_error(f"log: {log}")


def _set_threads(threads: int | None) -> None:
    """Heeded by libraries that are imported from now on."""
    if threads is not None and threads < 1:
        raise UserError(f"--threads must be at least 1, got {threads}")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    elif shutil.which("nvidia-smi") is None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks are several times slower on two threads
