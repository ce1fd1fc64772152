"""Files that are complete or absent, whatever happens while they are written."""

import errno
import io
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes, part: str = ".part") -> None:
    """Write the bytes `content` to `path`, which holds all of them or what it held before, also after a power cut.

    Where the disk is full, the error names `path` and nothing else is left there.

    Args:
        path: in a folder that exists.
        content: of the whole file.
        part: behind the name while it is not complete. Processes that may write the same file at one time need
            different ones.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    incomplete = path.with_name(path.name + part)
    try:
        with open(incomplete, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(incomplete, path)
    except OSError as error:  # that of a write does not know its file
        incomplete.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


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
