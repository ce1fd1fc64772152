"""Files that are complete or absent, whatever happens while they are written."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def open_atomically(path: Path, part: str = ".part") -> Iterator[BinaryIO]:
    """A file to write to. Afterwards `path` holds all of it or what it held before, also after a power cut.

    Where the disk is full, the error names `path` and nothing else is left there.

    Args:
        path: in a folder that exists.
        part: behind the name while it is not complete. Processes that may write the same file at one time need
            different ones.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    incomplete = path.with_name(path.name + part)
    try:
        with open(incomplete, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(incomplete, path)
    except Exception as error:
        incomplete.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        # that of a write does not know its file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def write_atomically(path: Path, content: bytes, part: str = ".part") -> None:
    """`open_atomically` for the bytes of a whole file."""
    with open_atomically(path, part) as file:
        file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """`write_atomically` in UTF-8."""
    write_atomically(Path(path), text.encode())


def png(picture: Any, **options: Any) -> bytes:
    """A figure of matplotlib or an image of Pillow as a PNG file; `options` are those of its own saving."""
    content = io.BytesIO()
    save = picture.savefig if hasattr(picture, "savefig") else picture.save
    save(content, format="png", **options)
    return content.getvalue()


def write_png(path: str | os.PathLike, picture: Any, **options: Any) -> None:
    """`write_atomically` what `png` makes."""
    write_atomically(Path(path), png(picture, **options))
