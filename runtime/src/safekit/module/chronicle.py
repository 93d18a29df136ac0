"""Why the module is in its state: what was heard before each change, kept with the change. Pure.

A *move* is what happens between two states in which a module can stay: all changes of a failover, of a `stopstart`, of
a start. What is heard while nothing moves is kept as a possible cause: for a while when it is an event, as long as it
is so when it is a condition (a resource that is down).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from safekit.store.entries import Cause, Change

RELEVANT = timedelta(seconds=60)
"""How long an event may explain a change that comes after it."""

MOST_CAUSES = 12
"""Of one change; the newest are kept."""

SENTENCE_LIMIT = 300


@dataclass(frozen=True)
class _Heard:
    """`subject`: what it is about. `holds`: a condition, not an event. `told`: it has explained a change."""

    subject: str
    cause: Cause
    holds: bool
    told: bool = False


class Chronicle:
    """Goes on after `last`, the newest change that is known of this module."""

    def __init__(self, last: Change | None = None) -> None:
        self._move = last.move if last else 0
        self._settled = last.settled if last else True
        self._heard: list[_Heard] = []

    def happened(self, date: datetime, sentence: str, about: str = "") -> None:
        """An event that may explain what comes next; with `about`, in place of an earlier one about the same."""
        self._hear(_Heard(about, _cause(date, sentence), holds=False))

    def holds(self, date: datetime, subject: str, sentence: str) -> None:
        """A condition that may explain what comes next, until `over`."""
        self._hear(_Heard(subject, _cause(date, sentence), holds=True))

    def over(self, date: datetime, subject: str, sentence: str) -> None:
        """The condition ended; that is an event, if it was known to hold."""
        if any(heard.subject == subject and heard.holds for heard in self._heard):
            self._hear(_Heard(subject, _cause(date, sentence), holds=False))

    def changed(
        self, date: datetime, role: str, readiness: str, reason: str, *, settled: bool, named: Collection[str] = ()
    ) -> Change:
        """The module changed its state.

        settled: whether it can stay there. named: patterns of the conditions that the deciding rule speaks of; they are
        causes however old they are.
        """
        if self._settled:
            self._move += 1
        self._settled = settled
        explaining = [
            heard
            for heard in self._heard
            if (heard.holds and any(fnmatchcase(heard.subject, name) for name in named))
            or (not heard.told and heard.cause.date >= date - RELEVANT)
        ]
        # A condition goes on holding; what it explained once it explains again only where a rule names it.
        self._heard = [replace(heard, told=heard.told or heard in explaining) for heard in self._heard if heard.holds]
        causes = tuple(heard.cause for heard in explaining)[-MOST_CAUSES:]
        return Change(date, self._move, role, readiness, reason, causes, settled)

    def _hear(self, new: _Heard) -> None:
        self._heard = [heard for heard in self._heard if not (new.subject and heard.subject == new.subject)] + [new]
        events = [heard for heard in self._heard if not heard.holds]
        if len(events) > 2 * MOST_CAUSES:
            self._heard.remove(events[0])


def _cause(date: datetime, sentence: str) -> Cause:
    return Cause(date, sentence[:SENTENCE_LIMIT])
