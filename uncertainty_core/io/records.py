"""Dataclasses from what JSON or YAML gives, with every value checked against the type of its field."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..errors import did_you_mean

_WORDS = {str: "a word", int: "a whole number", float: "a number", bool: "true or false"}
_NOT_IN_JSON = ("nan", "inf", "-inf")  # what `strict` writes

Reader = Callable[[Any, str], Any]


def build(kind: Any, value: Any, place: str = "", readers: Mapping[Any, Reader] = types.MappingProxyType({})) -> Any:
    """`value` as an instance of `kind`; ValueError names the place of what is something else.

    Errors of a dataclass itself must begin with the name of the field that they are about.

    Args:
        kind: a dataclass, str, int, float, bool, Any, `Literal[...]`, or one of these in `list[...]`,
            `tuple[..., ...]`, `dict[str, ...]`, `... | None`.
        value: null for a dataclass is one without keys, a single value for a tuple is a tuple of one; numbers that
            JSON lacks are words.
        place: its dotted name.
        readers: of kinds that are read in another way; they are called with value and place.
    """
    if kind in readers:
        return readers[kind](value, place)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, place, readers)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        expect(value in arguments, f"one of {', '.join(map(str, arguments))}", value, place)
        return value
    if origin in (types.UnionType, typing.Union):  # only ever "something or None"
        return None if value is None else build(arguments[0], value, place, readers)
    if origin in (list, tuple):
        items = [value] if origin is tuple and not isinstance(value, list | tuple) else value
        expect(isinstance(items, list | tuple), "a list", value, place)
        return origin(build(arguments[0], item, f"{place}[{k}]", readers) for k, item in enumerate(items))
    if origin is dict:
        expect(isinstance(value, dict), "keys and values", value, place)
        return {str(key): build(arguments[1], item, f"{place}.{key}", readers) for key, item in value.items()}
    if kind is float:
        expect(type(value) in (int, float) or value in _NOT_IN_JSON, _WORDS[kind], value, place)
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{place} is larger than any number that can be computed with") from None
    expect(type(value) is kind, _WORDS[kind], value, place)
    return value


def _record(kind: type, value: Any, place: str, readers: Mapping[Any, Reader]) -> Any:
    value = {} if value is None else value
    expect(isinstance(value, dict), "keys and values", value, place)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{place}." if place else ""
    for key in value:
        if key not in fields:
            near = did_you_mean(str(key), fields, otherwise=f"; known are {', '.join(fields)}")
            raise ValueError(f"there is no key {prefix}{key}{near}")
    for name, field in fields.items():
        if name not in value and field.default is field.default_factory:  # neither is given
            raise ValueError(f"{prefix}{name} is missing")
    types_of = typing.get_type_hints(kind)
    arguments = {key: build(types_of[key], item, prefix + key, readers) for key, item in value.items()}
    try:
        return kind(**arguments)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def expect(condition: bool, what: str, value: Any, place: str) -> None:
    """Raise ValueError unless `condition`: the value at this place must be `what`."""
    if not condition:
        shown = repr(value)
        raise ValueError(f"{place or 'it'} must be {what}, got {shown if len(shown) <= 60 else shown[:57] + '...'}")
