"""Files that are complete or absent, whatever happens while they are written."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes, part: str = ".part") -> None:
    """Write the bytes `content` to `path`, which holds all of them or what it held before, also after a power cut.

    Args:
        path: in a folder that exists.
        content: of the whole file.
        part: behind the name while it is not complete. Processes that may write the same file at one time need
            different ones.
    """
    incomplete = path.with_name(path.name + part)
    with open(incomplete, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(incomplete, path)
