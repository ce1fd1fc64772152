"""Errors that a user can mend."""

from collections.abc import Iterable


class UserError(ValueError):
    """Something in a config, a file or a command line is wrong; the message is one sentence on what to change."""


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a sentence that offers the nearest `known` word; `otherwise` where none is near."""
    import difflib  # not at the start of every program

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else otherwise
