"""Whether a folder can be written to, asked before hours of work rather than after them."""

import errno
import os
import shutil
from pathlib import Path

from ..errors import UserError


def check_room(folder: str | os.PathLike, needed: int, written: str | None = None) -> None:
    """Raise UserError unless `folder`, which need not exist, has room for `needed` bytes; nothing is left there.

    Args:
        folder: of all files.
        needed: bytes.
        written: pattern of files below the folder that are among them, from an earlier run.
    """
    folder = Path(folder).absolute()
    if written is not None:
        needed -= sum(path.stat().st_size for path in folder.rglob(written) if path.is_file())
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir():
        raise UserError(f"{folder} cannot be a folder: {place} is a file")
    # a read-only disk lets the superuser pass the plain test
    if not os.access(place, os.W_OK) or os.statvfs(place).f_flag & os.ST_RDONLY:
        raise UserError(f"nothing can be written to {folder}: {os.strerror(errno.EACCES)} in {place}")
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(f"{folder} needs {_mebibytes(needed)}, and {_mebibytes(free)} are free: choose another disk")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
