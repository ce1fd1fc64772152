"""Errors that a user can mend, and how a program ends with them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something in a config, a file or a command line is wrong; the message says in one sentence what to change."""


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """A `UserError` ends the program with its sentence and exit code 2, not with a traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
