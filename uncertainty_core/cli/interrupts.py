"""SIGINT, as an exception that cannot get lost.

Python raises KeyboardInterrupt wherever the program happens to be. In a destructor, or in code that C calls back, it is
printed and forgotten, and a training goes on. So what was received is remembered, and long loops ask (`check`).
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_received = False


@contextmanager
def noticing() -> Iterator[None]:
    """Remember SIGINT, which raises KeyboardInterrupt as ever."""
    global _received
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: object) -> NoReturn:
        global _received
        _received = True
        raise KeyboardInterrupt

    if before is not signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        _received = False
        signal.signal(signal.SIGINT, before)


def received() -> bool:
    """Whether there was a SIGINT in `noticing`."""
    return _received


def check() -> None:
    """Raise KeyboardInterrupt if there was a SIGINT in `noticing`."""
    if _received:
        raise KeyboardInterrupt
