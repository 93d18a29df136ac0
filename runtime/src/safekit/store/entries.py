"""The values that travel in and out of the store. No database here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

LEVELS = {
    "C": "critical",
    "E": "event",
    "U": "user action",
    "S": "script",
    "I": "information",
    "D": "debug",
}
"""Levels of the module log (spec §11.1)."""

VISIBLE_LEVELS = ("C", "E", "U", "S")
"""What the log shows without `verbose`; the others are written all the same."""


@dataclass(frozen=True)
class LogEntry:
    """One line of a module's log. `id` grows with every entry of one module; `date` is UTC, to the microsecond."""

    id: int
    date: datetime
    origin: str
    level: str
    message: str


@dataclass(frozen=True)
class ResourceValue:
    """A resource (`class.id`, spec §6.3), its value and since when it has that value (UTC)."""

    name: str
    value: str
    date: datetime


@dataclass(frozen=True)
class CommandEntry:
    """One line of the node's command log (spec §11.3).

    `phase` is START (message: the arguments), END (message: the return code and what was wrong) or EVENT (something
    that nobody asked for). The two lines of one command share `command`.
    """

    id: int
    command: int
    date: datetime
    phase: str
    type: str
    module: str | None
    who: str
    message: str


@dataclass(frozen=True)
class Cause:
    """Something that was heard before a change of state, in words (UTC)."""

    date: datetime
    sentence: str


@dataclass(frozen=True)
class Change:
    """A change of a module's state and what led to it.

    Changes of one `move` belong together: it begins where the module left a state in which it could stay and ends
    where it reached one (`settled`).
    """

    date: datetime
    move: int
    state: str
    substate: str
    reason: str
    causes: tuple[Cause, ...]
    settled: bool
