"""Whose a folder is that a program goes on writing: a JSON file in it notes what was asked for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError


def is_written_for(
    note: Path, request: Mapping[str, Any], what: str, section: str | None = None, place: Path | None = None
) -> bool:
    """Whether `note` is there and holds this `request`; UserError if it holds another, or was not written for any.

    Args:
        note: JSON file.
        request: values by name.
        what: was written, for the message.
        section: of the file that holds the request; None for the file as a whole.
        place: what to remove if it holds something else; None for the note itself.
    """
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        section_content = content if section is None else content[section]
        found = {name: section_content[name] for name in request}
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{note} was not written by this project: move it away, or choose another folder") from None
    for name, value in request.items():
        if found[name] != value:
            raise UserError(
                f"{place or note} holds other {what}, of {name} {found[name]}, not {value}: remove it, or choose "
                "another folder"
            )
    return True
