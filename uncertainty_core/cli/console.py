"""What a person at the terminal sees: steps, one progress bar, results. What frameworks print goes to a log file.

`echo`, `Steps` and `progress` write to the terminal also while `quiet` sends standard output and error elsewhere, and
to standard output and error otherwise: code that uses them need not know. Of the processes that a launcher such as
torchrun started, the first one alone writes there.
"""

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

from . import interrupts

Item = TypeVar("Item")


class _Quiet:
    """Standard output and error in a file, and where they were before."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="log-", suffix=".txt")
        self.path, self.is_named = Path(name), False
        sys.stdout.flush()
        sys.stderr.flush()
        self._before = os.dup(1), os.dup(2)
        self._python_streams = sys.stdout, sys.stderr
        self.out, self.err = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in self._before)
        self._send_to(descriptor)

    def _send_to(self, descriptor: int) -> None:
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.close(descriptor)
        # also of a process whose Python streams are not the descriptors 1 and 2
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))

    def move_to(self, path: Path) -> None:
        """Append what was printed so far to `path`, and all that follows."""
        sys.stdout.flush()
        sys.stderr.flush()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "rb") as start, open(path, "ab") as log:
            shutil.copyfileobj(start, log)
        self._forget()
        self.path, self.is_named = path, True
        self._send_to(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))

    def _forget(self) -> None:
        if not self.is_named:
            self.path.unlink(missing_ok=True)

    def end(self) -> None:
        """Standard output and error are what they were."""
        with suppress(OSError):  # a full disk ends a program with the sentence that names it
            sys.stdout.flush()
            sys.stderr.flush()
        self.out.close()
        self.err.close()
        for stream, before in zip((1, 2), self._before, strict=True):
            os.dup2(before, stream)
            os.close(before)
        sys.stdout, sys.stderr = self._python_streams
        self._forget()


_quiet: _Quiet | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """Send all that is printed, also by C code and child processes, to a log file; see `log_to`.

    Without `log_to` the log is lost at the end.
    """
    global _quiet
    _quiet = _Quiet()
    try:
        yield
    finally:
        ended, _quiet = _quiet, None
        ended.end()


def log_to(path: str | os.PathLike) -> None:
    """The place of the log, once it is known; what was printed before comes along. Nothing happens without `quiet`."""
    if _quiet is not None:
        _quiet.move_to(Path(path))


def log_path() -> Path | None:
    """The file that `log_to` named, while `quiet` lasts."""
    return _quiet.path if _quiet is not None and _quiet.is_named else None


_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")  # of torchrun, srun and mpirun


def _is_first_process() -> bool:
    return next((os.environ[name] for name in _RANKS if name in os.environ), "0") == "0"


def _terminal(name: str) -> TextIO:
    return getattr(sys, f"std{name}") if _quiet is None else getattr(_quiet, name)


def _print(text: object, stream: TextIO) -> None:
    for bar in _bars:
        bar.clear()  # its next update draws it anew
    print(text, file=stream, flush=True)


def echo(text: object = "") -> None:
    """Print a line for the person at the terminal."""
    if _is_first_process():
        _print(text, _terminal("out"))


def echo_error(text: object) -> None:
    """`echo` to standard error; what another process than the first one prints goes where its log does."""
    _print(text, _terminal("err") if _is_first_process() else sys.stderr)


def silent(title: str) -> None:
    """In the place of `Steps` where nobody is to hear of steps."""


class Steps:
    """Announces numbered steps: `[2/5] student: 200 iterations`.

    Example:
        >>> step = Steps(2)
        >>> step("train")
        [1/2] train
        >>> step("measure")
        [2/2] measure

    """

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    def __call__(self, title: str) -> None:
        """Announce the next step."""
        self.number += 1
        echo(f"[{self.number}/{self.total}] {title}")


class _Bar(tqdm):
    """A bar whose owner, a long loop, notices a SIGINT that got lost."""

    def update(self, n: float | None = 1) -> bool | None:
        """Count."""
        interrupts.check()
        return super().update(n)


_bars: weakref.WeakSet[tqdm] = weakref.WeakSet()


def progress(total: int, description: str, unit: str = "it", initial: int = 0, shown: bool = True) -> tqdm:
    """A progress bar on the terminal, gone when it ends; none where standard error is a file, or unless `shown`."""
    bar = _Bar(
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        file=_terminal("err"),
        disable=None if shown and _is_first_process() else True,  # None: unless it is a terminal
        leave=False,
        dynamic_ncols=True,
    )
    _bars.add(bar)
    return bar


def track(items: Iterable[Item], description: str, unit: str = "it", shown: bool = True) -> Iterator[Item]:
    """The items, which have a length, with a progress bar over them."""
    with progress(len(items), description, unit, shown=shown) as bar:
        for item in items:
            yield item
            bar.update()
