"""Errors that a user can mend, and how a program ends with them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something in a config, a file or a command line is wrong; the message is one sentence on what to change."""


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """A `UserError`, or a file that cannot be opened, ends the program with one sentence and exit code 2.

    Other errors keep their tracebacks, also those of the operating system that are about no file.
    """
    try:
        yield
    except UserError as error:
        _stop(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _stop(f"{error.filename}: {error.strerror or error}")


def _stop(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)
