"""The five time fields of a crontab entry (spec §3.6 `syncat`): when it comes next. Pure, and without a time zone.

minute hour day-of-month month day-of-week; in each field `*`, a number or name, a range, a list, and a step behind `*`
or a range. Sunday is 0 and 7. As every cron has it: where neither of the two day fields begins with `*`, a day that
fits one of them is enough. Who evaluates it gives local time; an hour that a clock change skips has no entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from safekit.config.values import BadValue

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_SEARCH = timedelta(days=8 * 366 + 2)
"""29 February on a given day of the month comes within eight years, also over a year 2100."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _DAYS),
)


@dataclass(frozen=True, slots=True)
class Crontab:
    """A schedule; equal when written alike."""

    text: str
    minutes: frozenset[int] = field(compare=False, repr=False)
    hours: frozenset[int] = field(compare=False, repr=False)
    days: frozenset[int] = field(compare=False, repr=False)
    months: frozenset[int] = field(compare=False, repr=False)
    weekdays: frozenset[int] = field(compare=False, repr=False)
    either_day: bool = field(compare=False, repr=False)
    """Both day fields say something: one of them is enough."""

    def after(self, moment: datetime) -> datetime:
        """The first minute later than `moment` that the schedule names (naive local time in, the same out)."""
        found = self._next(moment)
        assert found is not None, "crontab() refuses a schedule that never comes"
        return found

    def _next(self, moment: datetime) -> datetime | None:
        at = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        last = at + _LONGEST_SEARCH
        while at < last:
            if at.month not in self.months or not self._on_day(at):
                at = at.replace(hour=0, minute=0) + timedelta(days=1)
            elif at.hour not in self.hours:
                at = at.replace(minute=0) + timedelta(hours=1)
            elif at.minute not in self.minutes:
                at += timedelta(minutes=1)
            else:
                return at
        return None

    def _on_day(self, at: datetime) -> bool:
        by_month, by_week = at.day in self.days, at.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either_day else by_month and by_week


def crontab(text: str) -> Crontab:
    """Reads the five fields. Raises `BadValue` with the field that is wrong."""
    words = text.lower().split()
    if len(words) != len(_FIELDS):
        raise BadValue(f"{len(words)} fields")
    minutes, hours, days, months, weekdays = (_members(word, kind) for word, kind in zip(words, _FIELDS, strict=True))
    schedule = Crontab(
        text=text,
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        either_day=not words[2].startswith("*") and not words[4].startswith("*"),
    )
    if schedule._next(datetime(2000, 1, 1)) is None:
        raise BadValue("this day never comes")
    return schedule


def _members(word: str, kind: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        found.update(_range(part, kind))
    return frozenset(found)


def _range(part: str, kind: _Field) -> range:
    span, slash, step = part.partition("/")
    if span == "*":
        first, last = kind.first, kind.last
    else:
        low, dash, high = span.partition("-")
        if slash and not dash:
            raise BadValue(f"the {kind.name}: a step belongs behind * or a range, and stands behind {span!r}")
        first = _number(low, kind)
        last = _number(high, kind) if dash else first
    if first > last:
        raise BadValue(f"the {kind.name}: the range {span!r} ends before it begins")
    if slash and not (step.isdigit() and 0 < int(step[:6]) <= kind.last):
        raise BadValue(f"the {kind.name}: the step {step!r} is no number from 1 to {kind.last}")
    return range(first, last + 1, int(step) if slash else 1)


def _number(text: str, kind: _Field) -> int:
    if text in kind.names:
        return kind.names.index(text) + kind.first
    if text.isdigit() and len(text) <= 4 and kind.first <= int(text) <= kind.last:
        return int(text)
    allowed = f"{kind.first} to {kind.last}" + (f" or {kind.names[0]} to {kind.names[-1]}" if kind.names else "")
    raise BadValue(f"the {kind.name} is {text!r}, not {allowed}")
