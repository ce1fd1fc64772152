"""How a program starts and ends: its threads, what it prints, and errors in one sentence."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NoReturn

from ..errors import UserError
from .console import echo_error, log_path, quiet

INTERRUPTED = 130  # what a shell reports of a program that SIGINT ended


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """`--threads` and `--verbose`, which every program that runs a network has."""
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processor threads of each process (default: 1 without a GPU)"
    )
    parser.add_argument("--verbose", action="store_true", help="show what the frameworks log, too")


@contextmanager
def program(args: argparse.Namespace) -> Iterator[None]:
    """Run a program's work. Errors that its user can mend end it with one sentence and exit code 2.

    SIGINT ends it with one sentence and exit code 130. Other errors keep their tracebacks. Frameworks are imported
    inside: what they print goes to the log (`console.log_to`), which every error names, unless `args.verbose`.
    """
    with nullcontext() if getattr(args, "verbose", True) else quiet():
        try:
            _set_threads(getattr(args, "threads", None))
            yield
        except UserError as error:
            _end(f"error: {error}", 2)
        except OSError as error:
            if error.filename is None:
                _name_log()
                raise
            _end(f"error: {error.filename}: {error.strerror or error}", 2)
        except KeyboardInterrupt:
            _end("interrupted; the same command goes on", INTERRUPTED)
        except Exception:
            _name_log()  # what led to the traceback that follows
            raise


def _end(sentence: str, code: int) -> NoReturn:
    echo_error(sentence)
    _name_log()
    sys.exit(code)


def _name_log() -> None:
    if (log := log_path()) is not None:
        echo_error(f"log: {log}")


def _set_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise UserError(f"--threads must be at least 1, got {threads}")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # heeded by libraries that are imported from now on
