"""The resources of one module (spec §6.3): named values that explain and drive it, each with the history of its
changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from safekit.store import dates
from safekit.store.database import Database
from safekit.store.entries import ResourceValue
from safekit.store.journal import to_journal

KEPT_CHANGES = 20_000
_PURGE_EVERY = 500
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\.[^\s?*]{1,200}")
_VALUE_LIMIT = 1_024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resource (name TEXT PRIMARY KEY, value TEXT NOT NULL, date INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS change (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL, date INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS change_of ON change (name, id);
"""


class Resources:
    """The resources of a module in the file `path`. Values are read from memory and are known again after a restart."""

    def __init__(
        self,
        module: str,
        path: Path,
        *,
        clock: Callable[[], datetime] = dates.now,
        journal: Callable[[str, str], None] = to_journal,
        keep: int = KEPT_CHANGES,
    ) -> None:
        self._clock = clock
        self._keep = keep
        self._values: dict[str, ResourceValue] = {}
        self._changes = 0
        self._database = Database(path, _SCHEMA, lambda sentence: journal("C", f"{module} | safekit | {sentence}"))

    async def open(self) -> None:
        """Open the file and read the values that it holds."""
        await self._database.open()
        rows = await self._database.read("SELECT name, value, date FROM resource")
        self._values = {str(name): _value(name, value, date) for name, value, date in rows}

    def get(self, name: str) -> ResourceValue | None:
        """A resource; None if it was never set."""
        return self._values.get(name)

    def all(self) -> tuple[ResourceValue, ...]:
        """Every resource, by name."""
        return tuple(self._values[name] for name in sorted(self._values))

    def set(self, name: str, value: str, *, lasting: bool = True, again: bool = False) -> bool:
        """Give a resource a value; False, and nothing happens, if it already has it (`again`: that counts as well).

        `lasting` False is for metrics: in memory only, without history. A name that is not `class.id` is a ValueError.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"resource name {name!r}: expected class.id, for example custom.database")
        if len(value) > _VALUE_LIMIT:
            raise ValueError(f"value of resource {name}: {len(value)} characters, at most {_VALUE_LIMIT} are kept")
        present = self._values.get(name)
        if present is not None and present.value == value and not again:
            return False
        date = self._clock()
        self._values[name] = ResourceValue(name, value, date)
        if lasting:
            row = (name, value, dates.to_microseconds(date))
            self._database.write(
                ("INSERT OR REPLACE INTO resource VALUES (?, ?, ?)", row),
                ("INSERT INTO change (name, value, date) VALUES (?, ?, ?)", row),
            )
            self._changes += 1
            if self._changes % _PURGE_EVERY == 0:
                self._database.write(("DELETE FROM change WHERE id <= (SELECT max(id) FROM change) - ?", (self._keep,)))
        return True

    def forget(self, name: str) -> None:
        """Remove a resource that the configuration no longer has; its history stays until it is purged."""
        if self._values.pop(name, None) is not None:
            self._database.write(("DELETE FROM resource WHERE name = ?", (name,)))

    async def history(self, name: str, lines: int) -> tuple[ResourceValue, ...]:
        """The last `lines` values of a resource with their dates, newest first."""
        rows = await self._database.read(
            "SELECT name, value, date FROM change WHERE name = ? ORDER BY id DESC LIMIT ?", (name, lines)
        )
        if not rows and name in self._values:
            return (self._values[name],)
        return tuple(_value(*row) for row in rows)

    async def close(self) -> None:
        """Write what still waits, close the file."""
        await self._database.close()


def _value(name: object, value: object, date: object) -> ResourceValue:
    return ResourceValue(str(name), str(value), dates.from_microseconds(date))
