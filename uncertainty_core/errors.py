"""Errors that a user can mend."""

from collections.abc import Iterable, Mapping


class UserError(ValueError):
    """Something in a config, a file or a command line is wrong; the message is one sentence on what to change."""


class DivergenceError(UserError):
    """A loss is not finite; the message names the loss, the iteration and the keys to lower."""


def divergence(what: str, iteration: int, to_lower: Mapping[str, float | None], otherwise: str = "") -> DivergenceError:
    """The error of a training that ends since something is infinite or NaN.

    Args:
        what: is not finite, such as "loss_cls, loss_ddn".
        iteration: when.
        to_lower: keys of the config, and what they are.
        otherwise: another way out, as the end of the sentence.
    """
    lower = " or ".join(f"{key} ({'unset' if value is None else f'{value:g}'} now)" for key, value in to_lower.items())
    return DivergenceError(
        f"the training diverged: not finite at iteration {iteration}: {what}; lower {lower}{otherwise}"
    )


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a sentence that offers the nearest `known` word; `otherwise` where none is near."""
    import difflib  # not at the start of every program

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else otherwise
