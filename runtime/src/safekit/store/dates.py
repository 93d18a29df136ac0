"""Dates in the store: UTC, whole microseconds since 1970 in the file, aware `datetime` outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """The system's clock."""
    return datetime.now(UTC)


def to_microseconds(date: datetime) -> int:
    """An aware date as a whole number."""
    return (date - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(count: object) -> datetime:
    """What `to_microseconds` wrote."""
    assert isinstance(count, int)
    return _EPOCH + timedelta(microseconds=count)
