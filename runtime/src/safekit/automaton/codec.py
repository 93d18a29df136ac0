"""Automata as JSON: how a module's value outlives a restart of the daemon.

Dataclasses are objects that carry their class name, enumerations are strings that the field's default or its class
restores. A field that the reader does not know is dropped, one that the file lacks takes its default: two versions of
the daemon can hand over to each other.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

from safekit.automaton import data, farm, vocabulary
from safekit.automaton.mirror import values

FORMAT = 1

_CLASSES: dict[str, type[Any]] = {
    name: thing
    for module in (vocabulary, data, values, farm)
    for name, thing in vars(module).items()
    if isinstance(thing, type) and (is_dataclass(thing) or (issubclass(thing, StrEnum) and thing is not StrEnum))
}


class UnreadableState(Exception):
    """What was read is not a value that `encode` wrote."""


def encode(value: object) -> object:
    """`value` as what `json.dumps` takes."""
    if isinstance(value, StrEnum):
        return {"enum": type(value).__name__, "value": value.value}
    if is_dataclass(value) and not isinstance(value, type):
        return {"class": type(value).__name__} | {f.name: encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode(value: object) -> Any:
    """The inverse of `encode`. Raises UnreadableState."""
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    try:
        if "enum" in value:
            return _CLASSES[value["enum"]](value["value"])
        kind = _CLASSES[value["class"]]
        known = {f.name for f in fields(kind)}
        return kind(**{name: decode(item) for name, item in value.items() if name in known})
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableState(f"cannot read the saved state: {error!r}") from error
