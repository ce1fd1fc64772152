"""Dataclasses from JSON, with every value checked against the type of its field."""

import dataclasses
import types
import typing
from typing import Any

_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_NOT_IN_JSON = ("nan", "inf", "-inf")  # what `strict` writes


def build(kind: Any, value: Any, place: str = "") -> Any:
    """`value`, as JSON gives it, as an instance of `kind`; ValueError names the place of what is something else.

    Args:
        kind: a dataclass, str, int, float, bool, Any, or one of these in `list[...]`, `dict[str, ...]`, `... | None`.
        value: numbers that JSON lacks are words.
        place: its dotted name.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, place)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else build(arguments[0], value, place)
    if origin is list:
        _expect(isinstance(value, list), "a list", value, place)
        return [build(arguments[0], item, f"{place}[{k}]") for k, item in enumerate(value)]
    if origin is dict:
        _expect(isinstance(value, dict), "an object", value, place)
        return {key: build(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    if kind is float:
        _expect(type(value) in (int, float) or value in _NOT_IN_JSON, _WORDS[kind], value, place)
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{place} is larger than any number that can be computed with") from None
    _expect(type(value) is kind, _WORDS[kind], value, place)
    return value


def _record(kind: type, value: Any, place: str) -> Any:
    _expect(isinstance(value, dict), "an object", value, place)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{place}." if place else ""
    if unknown := [key for key in value if key not in fields]:
        raise ValueError(f"{prefix}{unknown[0]} is unknown")
    for name, field in fields.items():
        if name not in value and field.default is field.default_factory:  # neither is given
            raise ValueError(f"{prefix}{name} is missing")
    types_of = typing.get_type_hints(kind)
    return kind(**{key: build(types_of[key], item, prefix + key) for key, item in value.items()})


def _expect(condition: bool, what: str, value: Any, place: str) -> None:
    if not condition:
        shown = repr(value)
        raise ValueError(f"{place or 'it'} must be {what}, got {shown if len(shown) <= 60 else shown[:57] + '...'}")
