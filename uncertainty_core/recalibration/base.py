"""What all calibrators have in common: what they map, and how they are written and read."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

import torch

from ..errors import UserError
from ..io.files import write_text
from ..io.strict_json import read_json, strict_json

FORMAT = 1

SCORES, PROBABILITIES, BOXES = "scores", "class probabilities", "deviations of boxes"


class CalibratorError(UserError):
    """A calibrator that cannot be read, or that is for something else; the message is one sentence."""


@dataclass(frozen=True)
class Calibrator:
    """A fitted map. Fields are numbers, names, other calibrators, or tuples of them, and decide all that it does.

    task: what it maps, SCORES, PROBABILITIES or BOXES.
    kind: its name in files, unique within the task.
    """

    task: ClassVar[str]
    kind: ClassVar[str]

    @property
    def num_classes(self) -> int | None:
        """How many classes it was fitted for; None where it takes any."""
        return None

    def to_json(self) -> str:
        """Strict JSON that `from_json` reads."""
        return strict_json({"format": FORMAT, **_encoded(self)})


_KINDS: dict[tuple[str, str], type[Calibrator]] = {}

Kind = TypeVar("Kind", bound=type[Calibrator])


def register(cls: Kind) -> Kind:
    """Have `from_json` find a class by its task and kind."""
    _KINDS[cls.task, cls.kind] = cls
    return cls


def from_json(text: str) -> Calibrator:
    """The calibrator that `to_json` wrote; raises CalibratorError."""
    from . import class_wise, detections, log_odds, operating_points, probabilities, segments  # noqa: F401, they register

    try:
        content = read_json(text)
    except ValueError as error:
        raise CalibratorError(f"not a calibrator, since it is no JSON: {error}") from None
    if not isinstance(content, dict) or "kind" not in content:
        raise CalibratorError("not a calibrator, since it holds no 'kind'; fit_calibrator writes them")
    found = content.pop("format", None)
    if type(found) is not int or found != FORMAT:
        raise CalibratorError(f"the calibrator has format {found}, and format {FORMAT} is read; fit it again")
    return _decoded(content)


def save(calibrator: Calibrator, path: str | Path) -> None:
    """Write the calibrator to a file that `load` reads."""
    write_text(path, calibrator.to_json())


def load(path: str | Path) -> Calibrator:
    """The calibrator in a file; raises CalibratorError, which names the file."""
    try:
        return from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibratorError(f"{path} cannot be read: {error.strerror}") from None
    except (CalibratorError, UnicodeDecodeError) as error:
        raise CalibratorError(f"{path}: {error}") from None


def check_fits(calibrator: Calibrator, task: str, num_classes: int) -> None:
    """Raise CalibratorError unless the calibrator maps what `task` names, of so many classes."""
    if calibrator.task != task:
        raise CalibratorError(
            f"the calibrator {calibrator.kind!r} is for {calibrator.task}, and one for {task} is needed"
        )
    if calibrator.num_classes not in (None, num_classes):
        raise CalibratorError(
            f"the calibrator was fitted for {calibrator.num_classes} classes, and here are {num_classes}; fit it again"
        )


def is_traced() -> bool:
    """Whether torch records what runs now, in which case no value may decide what runs next."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def _encoded(value: Any) -> Any:
    if isinstance(value, Calibrator):
        content = {field.name: _encoded(getattr(value, field.name)) for field in fields(value)}
        return {"task": value.task, "kind": value.kind, **content}
    return [_encoded(entry) for entry in value] if isinstance(value, tuple) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(entry) for entry in value)
    if not isinstance(value, dict):
        return value
    content = dict(value)
    task, kind = (str(content.pop(name, None)) for name in ("task", "kind"))
    if (task, kind) not in _KINDS:
        raise CalibratorError(
            f"there is no calibrator of the kind {kind!r} for {task}; it may come from a later version"
        )
    cls = _KINDS[task, kind]
    types = get_type_hints(cls)
    names = {field.name for field in fields(cls)}
    if content.keys() != names:
        differing = ", ".join(sorted(content.keys() ^ names))
        raise CalibratorError(f"a calibrator of the kind {kind!r} has other entries; look at {differing}")
    entries = {name: _decoded(entry) for name, entry in content.items()}
    for name, entry in entries.items():
        if not _is(entry, types[name]):
            raise CalibratorError(f"a calibrator of the kind {kind!r} cannot have the {name} {str(entry)[:60]!r}")
    try:
        return cls(**entries)
    except (TypeError, ValueError) as error:
        raise CalibratorError(str(error)) from None


def _is(value: Any, kind: Any) -> bool:
    """Whether a value of a file is of the type of its field, and finite where that is a number."""
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is(entry, get_args(kind)[0]) for entry in value)
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is kind or (issubclass(kind, Calibrator) and isinstance(value, kind))
