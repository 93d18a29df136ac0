"""The node's command log (spec §11.3): who asked this node to change something, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from safekit.store import dates
from safekit.store.database import Database
from safekit.store.entries import CommandEntry
from safekit.store.journal import to_journal

KEPT_ENTRIES = 20_000
_PURGE_EVERY = 500
_MESSAGE_LIMIT = 2_048

_SCHEMA = """
CREATE TABLE IF NOT EXISTS command (
    id INTEGER PRIMARY KEY, command INTEGER NOT NULL, date INTEGER NOT NULL, phase TEXT NOT NULL, type TEXT NOT NULL,
    module TEXT, who TEXT NOT NULL, message TEXT NOT NULL
);
"""


class CommandLog:
    """The command log in the file `path`; no call waits for the disk, save `last` and `close`."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime] = dates.now,
        journal: Callable[[str, str], None] = to_journal,
        keep: int = KEPT_ENTRIES,
    ) -> None:
        self._clock = clock
        self._keep = keep
        self._newest = 0
        self._running: dict[int, tuple[str, str | None, str]] = {}
        self._database = Database(path, _SCHEMA, lambda sentence: journal("C", f"safekit | safekit | {sentence}"))

    async def open(self) -> None:
        """Open the file and go on after its last entry."""
        await self._database.open()
        for (newest,) in await self._database.read("SELECT coalesce(max(id), 0) FROM command"):
            assert isinstance(newest, int)
            self._newest = newest

    def start(self, type: str, module: str | None, who: str, arguments: str) -> int:
        """A command begins; the number to end it with. arguments: in words, without secrets."""
        command = self._add(None, "START", type, module, who, arguments)
        self._running[command] = (type, module, who)
        return command

    def end(self, command: int, code: int, message: str = "") -> None:
        """It ended: `code` 0 is success, anything else says why in `message`."""
        type, module, who = self._running.pop(command)
        self._add(command, "END", type, module, who, f"{code} {message}".rstrip())

    def event(self, type: str, module: str | None, message: str) -> None:
        """Something worth keeping that nobody asked for: a module changed its state, the cluster was reconfigured."""
        self._add(None, "EVENT", type, module, "safekitd", message)

    def _add(self, command: int | None, phase: str, type: str, module: str | None, who: str, message: str) -> int:
        self._newest += 1
        number = self._newest
        date = dates.to_microseconds(self._clock())
        command = number if command is None else command
        row = (number, command, date, phase, type, module, who, message[:_MESSAGE_LIMIT])
        self._database.write(("INSERT OR REPLACE INTO command VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row))
        if number % _PURGE_EVERY == 0:
            self._database.write(("DELETE FROM command WHERE id <= ?", (number - self._keep,)))
        return number

    async def last(self, lines: int) -> tuple[CommandEntry, ...]:
        """The last `lines` entries, oldest first."""
        rows = await self._database.read("SELECT * FROM command ORDER BY id DESC LIMIT ?", (lines,))
        return tuple(_entry(row) for row in reversed(rows))

    async def close(self) -> None:
        """Write what still waits, close the file."""
        await self._database.close()


def _entry(row: tuple[object, ...]) -> CommandEntry:
    number, command, date, phase, type, module, who, message = row
    assert isinstance(number, int) and isinstance(command, int)
    name = None if module is None else str(module)
    return CommandEntry(
        number, command, dates.from_microseconds(date), str(phase), str(type), name, str(who), str(message)
    )
