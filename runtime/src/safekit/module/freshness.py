"""When this node's copy was last known to be equal to the other's (spec §4.5 `syncdelta`): one small file.

The wall clock decides, as an administrator means it; a clock that was set back makes a copy old, never young.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from safekit.files import UnreadableFile, read_json, write_json

LEAST = timedelta(minutes=1)
"""A `syncdelta` up to this has no effect (spec §3.6)."""


class Freshness:
    """The date of the last synchronisation of one module's copy."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = path
        self._clock = clock

    def note(self) -> None:
        """The copies are equal now. Raises OSError."""
        write_json(self._path, {"synced": self._clock().isoformat()}, durable=True)

    def younger_than(self, limit: timedelta) -> bool:
        """Whether the copies were equal less than `limit` ago."""
        if limit <= LEAST:
            return False
        try:
            saved = read_json(self._path)
            synced = datetime.fromisoformat(saved["synced"])
            age = self._clock() - synced
        except (UnreadableFile, KeyError, TypeError, ValueError):
            return False
        return timedelta(0) <= age < limit
