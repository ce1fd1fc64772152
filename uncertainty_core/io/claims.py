"""Folders that remember which settings decided what is in them.

A rerun with other settings must never answer with old results. So a pipeline first checks the folders of all its steps,
and each step claims its folder before it writes there.
"""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import write_atomically
from .strict_json import read_json, strict_json

FILE = "settings.json"
FORMAT = 1
_NO_WORK = {FILE, "log.txt"}  # what a folder may hold without holding results
_NAMED_AT_MOST = 4  # differences in a message
_SHOWN = 60  # characters of a value in a message


class ClaimError(UserError):
    """A folder holds the work of other settings; the message names those that differ, and the ways out."""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their whole name: {"A": {"B": 1}} is {"A.B": 1}.

    Example:
        >>> flatten({"SOLVER": {"BASE_LR": 0.1, "STEPS": (3, 4)}, "SEED": 0})
        {'SOLVER.BASE_LR': 0.1, 'SOLVER.STEPS': [3, 4], 'SEED': 0}

    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def without(settings: Mapping[str, Any], harmless: tuple[str, ...]) -> dict[str, Any]:
    """Flat `settings` but for those in `harmless`, whole sections among them.

    Example:
        >>> without({"TEST.AUG.FLIP": True, "TESTS": 1, "SEED": 0}, ("TEST", "SEED"))
        {'TESTS': 1}

    """
    return {
        key: value
        for key, value in settings.items()
        if not any(key == name or key.startswith(f"{name}.") for name in harmless)
    }


def check_claim(folder: str | os.PathLike, settings: Mapping[str, Any], way_out: str) -> None:
    """Raise ClaimError if other settings, or unknown ones, have made what is in `folder`.

    Args:
        folder: of one step. One that is absent, or holds nothing but a claim and a log, is free.
        settings: JSON values of all that decides the outcome of the step.
        way_out: what its user can do about a refusal, as the end of a sentence.
    """
    folder = Path(folder)
    if not folder.is_dir() or all(path.name in _NO_WORK for path in folder.iterdir()):
        return
    try:
        found = _claimed(folder)
    except FileNotFoundError:
        raise ClaimError(f"{folder} holds files of unknown settings: remove it, or choose another") from None
    except (ValueError, KeyError, TypeError):
        raise ClaimError(f"{folder / FILE} is damaged or of another version: {way_out}") from None
    if different := list(_differences(found, _as_read(flatten(settings)))):
        more = f" and {len(different) - _NAMED_AT_MOST} more" if len(different) > _NAMED_AT_MOST else ""
        named = "; ".join(different[:_NAMED_AT_MOST])
        raise ClaimError(f"{folder} holds the work of other settings: {named}{more}: {way_out}")


def check_claims(claims: Mapping[Path, Mapping[str, Any]], way_out: str, overwrite: bool = False) -> None:
    """`check_claim` for the folders of a whole pipeline, before its first step.

    Args:
        claims: by folder, the settings that decide what is in it.
        way_out: see `check_claim`.
        overwrite: remove folders that hold the work of other settings instead of refusing them.
    """
    outdated = []
    for folder, settings in claims.items():
        try:
            check_claim(folder, settings, way_out)
        except ClaimError:
            if not (overwrite and (folder / FILE).exists()):
                raise
            outdated.append(folder)
    for folder in outdated:
        shutil.rmtree(folder)


def holds(folder: str | os.PathLike, settings: Mapping[str, Any]) -> bool:
    """Whether `folder` was claimed for these very settings."""
    try:
        return _equal(_claimed(Path(folder)), _as_read(flatten(settings)))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def claimed(folder: str | os.PathLike) -> dict[str, Any]:
    """What `claim` wrote into `folder`: "command", "settings" and notes; empty where it did not."""
    try:
        _claimed(Path(folder))
        return read_json((Path(folder) / FILE).read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _claimed(folder: Path) -> dict[str, Any]:
    """The settings that `folder` was claimed for; an error of reading, or ValueError, KeyError or TypeError."""
    found = read_json((folder / FILE).read_bytes())
    if not (_equal(found["format"], FORMAT) and isinstance(found["settings"], dict)):
        raise ValueError("of another version")
    if not isinstance(found.get("command", ""), str):
        raise TypeError("no command")
    return found["settings"]


def command_line() -> str:
    """The command line of this process, ready for a shell."""
    words = ["python", *sys.orig_argv[1:]]
    if len(words) > 1 and Path(words[1]).name == "distilled-uncertainty":
        words[:2] = ["distilled-uncertainty"]  # wherever that is installed
    return shlex.join(words)


def claim(folder: str | os.PathLike, settings: Mapping[str, Any], **notes: Any) -> None:
    """Note in `folder`, which is made if need be, that `settings` decide what will be in it.

    Args:
        folder: of one step.
        settings: JSON values of all that decides the outcome of the step.
        notes: JSON values that decide nothing. The command line of this process is one of them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "command": command_line(), "settings": _as_read(flatten(settings)), **notes}
    part = f".{os.getpid()}.part"  # each rank of a training may claim its folder
    write_atomically(folder / FILE, strict_json(content).encode(), part)


def clear(folder: str | os.PathLike) -> None:
    """Remove all that is in `folder` but its claim."""
    for path in Path(folder).glob("*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != FILE:
            path.unlink()


def is_written_for(
    note: Path, request: Mapping[str, Any], what: str, section: str | None = None, place: Path | None = None
) -> bool:
    """Whether `note` is there and holds this `request`; ClaimError if it holds another, or was not written for any.

    Args:
        note: JSON file.
        request: values by name.
        what: was written, for the message.
        section: of the file that holds the request; None for the file as a whole.
        place: what to remove if it holds something else; None for the note itself.
    """
    try:
        content = read_json(note.read_bytes())
        section_content = content if section is None else content[section]
        found = {name: section_content[name] for name in request}
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        raise ClaimError(f"{note} was not written by this project: move it away, or choose another folder") from None
    for name, value in request.items():
        if not _equal(found[name], value):
            raise ClaimError(
                f"{place or note} holds other {what}, of {name} {found[name]}, not {value}: remove it, or choose "
                "another folder"
            )
    return True


def _as_read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As the file will return them: tuples are lists, keys are strings."""
    return json.loads(strict_json(settings))


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """What differs, in the order of names: "KEY (there 1, now 2)"."""

    def show(values: Mapping[str, Any], key: str) -> str:
        text = json.dumps(values[key]) if key in values else "absent"
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."

    for key in sorted(found.keys() | wanted.keys()):
        if key not in found or key not in wanted or not _equal(found[key], wanted[key]):
            yield f"{key} (there {show(found, key)}, now {show(wanted, key)})"


def _equal(one: Any, other: Any) -> bool:
    """As JSON has it, where true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return one == other
