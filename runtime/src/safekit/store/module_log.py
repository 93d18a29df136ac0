"""The log of one module (spec §11.1): what happened, to the microsecond, for the person who asks why.

In the same file its changes of state with their causes, which `safekit why` shows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from safekit.store import dates
from safekit.store.database import Database
from safekit.store.entries import LEVELS, VISIBLE_LEVELS, Cause, Change, LogEntry
from safekit.store.journal import to_journal

KEPT_ENTRIES = 20_000
KEPT_CHANGES = 2_000
_PURGE_EVERY = 500
_MESSAGE_LIMIT = 8_192

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY, date INTEGER NOT NULL, origin TEXT NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS change (
    id INTEGER PRIMARY KEY, date INTEGER NOT NULL, move INTEGER NOT NULL, state TEXT NOT NULL, substate TEXT NOT NULL,
    reason TEXT NOT NULL, causes TEXT NOT NULL, settled INTEGER NOT NULL
);
"""
_COLUMNS = "SELECT id, date, origin, level, message FROM log"
_VISIBLE = "level IN ({})".format(", ".join(f"'{level}'" for level in VISIBLE_LEVELS))


class ModuleLog:
    """The log of `module` in the file `path`.

    One task loop uses it; no call of it waits for the disk, save `read` and `close`.

    journal: receives (level, line) for the system's log, in the thread of the database. keep: entries before the
    oldest go.
    """

    def __init__(
        self,
        module: str,
        path: Path,
        *,
        clock: Callable[[], datetime] = dates.now,
        journal: Callable[[str, str], None] = to_journal,
        keep: int = KEPT_ENTRIES,
    ) -> None:
        self._module = module
        self._clock = clock
        self._journal = journal
        self._keep = keep
        self._troubles: list[str] = []
        self._database = Database(path, _SCHEMA, self._trouble)
        self._newest = 0
        self._newest_visible = 0
        self._lost = 0
        self._news = asyncio.Event()
        self._opened = False
        self._closed = False

    async def open(self) -> None:
        """Open the file and go on after its last entry."""
        await self._database.open()
        for newest, visible in await self._database.read(
            f"SELECT coalesce(max(id), 0), coalesce(max(CASE WHEN {_VISIBLE} THEN id END), 0) FROM log"
        ):
            assert isinstance(newest, int) and isinstance(visible, int)
            self._newest, self._newest_visible = newest, visible
        self._opened = True
        for sentence in self._troubles:
            self.write("safekit", "C", sentence)

    def write(self, origin: str, level: str, message: str) -> LogEntry:
        """Add an entry.

        origin: the part that speaks (`safekit`, `heart`, `rfs`, `vip`, `userplug` …); level: a key of `LEVELS`.
        """
        if level not in LEVELS:
            raise ValueError(f"level {level!r} is none of {', '.join(LEVELS)}")
        if self._lost and not self._database.congested:
            lost, self._lost = self._lost, 0
            self._add("safekit", "C", f"{lost} messages were lost: the disk was too slow")
        return self._add(origin, level, message[:_MESSAGE_LIMIT])

    def _add(self, origin: str, level: str, message: str) -> LogEntry:
        entry = LogEntry(self._newest + 1, self._clock(), origin, level, message)
        statement = (
            "INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?, ?)",
            (entry.id, dates.to_microseconds(entry.date), origin, level, message),
        )
        if not self._database.write(statement):
            self._lost += 1
            return entry
        self._database.run(lambda: self._journal(level, f"{self._module} | {origin} | {message}"))
        if entry.id % _PURGE_EVERY == 0:
            self._database.write(("DELETE FROM log WHERE id <= ?", (entry.id - self._keep,)))
        self._newest = entry.id
        if level in VISIBLE_LEVELS:
            self._newest_visible = entry.id
        self._wake_readers()
        return entry

    async def last(self, lines: int, verbose: bool = False) -> tuple[LogEntry, ...]:
        """The last `lines` entries, oldest first; the hidden levels only if `verbose`."""
        where = "" if verbose else f"WHERE {_VISIBLE}"
        rows = await self._database.read(f"{_COLUMNS} {where} ORDER BY id DESC LIMIT ?", (lines,))
        return tuple(_entry(row) for row in reversed(rows))

    async def newer(self, after: int, lines: int, verbose: bool = False, wait: float = 0.0) -> tuple[LogEntry, ...]:
        """The next `lines` entries after the id `after`, oldest first; awaited for at most `wait` seconds if there
        are none.

        An id that the file has not reached (it was set aside since) counts as 0.
        """
        if after > self._newest:
            after = 0
        try:
            async with asyncio.timeout(wait):
                while not self._closed and (self._newest if verbose else self._newest_visible) <= after:
                    await self._news.wait()
        except TimeoutError:
            return ()
        where = "id > ?" if verbose else f"id > ? AND {_VISIBLE}"
        rows = await self._database.read(f"{_COLUMNS} WHERE {where} ORDER BY id LIMIT ?", (after, lines))
        return tuple(_entry(row) for row in rows)

    def write_change(self, change: Change) -> None:
        """Keep a change of state, those in which the module can stay over a loss of power too; the oldest go."""
        causes = [[dates.to_microseconds(cause.date), cause.sentence] for cause in change.causes]
        self._database.write(
            (
                "INSERT INTO change (date, move, state, substate, reason, causes, settled) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    dates.to_microseconds(change.date),
                    change.move,
                    change.state,
                    change.substate,
                    change.reason[:_MESSAGE_LIMIT],
                    json.dumps(causes, ensure_ascii=False),
                    change.settled,
                ),
            ),
            ("DELETE FROM change WHERE id <= (SELECT max(id) FROM change) - ?", (KEPT_CHANGES,)),
            durable=change.settled,
        )

    async def changes(self, moves: int) -> tuple[Change, ...]:
        """The changes of the last `moves` moves, oldest first."""
        rows = await self._database.read(
            "SELECT date, move, state, substate, reason, causes, settled FROM change "
            "WHERE move > (SELECT max(move) FROM change) - ? ORDER BY id",
            (moves,),
        )
        return tuple(_change(row) for row in rows)

    async def close(self) -> None:
        """Let waiting readers go, write what still waits, close the file."""
        self._closed = True
        self._wake_readers()
        await self._database.close()

    def _wake_readers(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _trouble(self, sentence: str) -> None:
        if self._opened:
            self._journal("C", f"{self._module} | safekit | {sentence}")
        else:
            self._troubles.append(sentence)


def _entry(row: tuple[object, ...]) -> LogEntry:
    number, date, origin, level, message = row
    assert isinstance(number, int)
    return LogEntry(number, dates.from_microseconds(date), str(origin), str(level), str(message))


def _change(row: tuple[object, ...]) -> Change:
    date, move, state, substate, reason, causes, settled = row
    assert isinstance(move, int)
    known = tuple(Cause(dates.from_microseconds(at), str(sentence)) for at, sentence in json.loads(str(causes)))
    return Change(dates.from_microseconds(date), move, str(state), str(substate), str(reason), known, bool(settled))
