"""One small SQLite file, written by a thread of its own so that a slow disk never holds up the daemon's loop.

Statements run in the order in which they were given. A file that a power cut has damaged is set aside and a new one
begun; a file that cannot be written at all is replaced by one in memory. Either is reported in one sentence, neither
stops anything: what is kept here explains the past, it decides nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Statement = tuple[str, Sequence[object]]

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another reader or writer of the file."""

PENDING_LIMIT = 10_000
"""Writes that may wait for the disk; beyond, the memory of the daemon would grow without bound."""

_DAMAGED = ("malformed", "not a database", "disk image", "no such table", "no such column", "database schema is")


class Database:
    """An SQLite file with a fixed schema.

    path: the file; its folder is made. schema: `CREATE ... IF NOT EXISTS` statements. report: is told, from any
    thread and in one sentence, what went wrong with the file.
    """

    def __init__(self, path: Path, schema: str, report: Callable[[str], None]) -> None:
        self._path = path
        self._schema = schema
        self._report = report
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"store-{path.stem}")
        self._connection: sqlite3.Connection | None = None
        self._pending = 0
        self._failing = False
        self._closed = False

    async def open(self) -> None:
        """Open the file, whatever its condition."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    @property
    def congested(self) -> bool:
        """True while so much waits for the disk that no more is accepted."""
        return self._pending >= PENDING_LIMIT

    def write(self, *statements: Statement, durable: bool = False) -> bool:
        """Queue statements as one transaction and return at once; False if they were refused (congested or closed).

        durable: on disk before the next statement; else a power cut may cost it.
        """
        if self._closed or self.congested:
            return False
        self._pending += 1
        self._thread.submit(self._write, statements, durable)
        return True

    def run(self, task: Callable[[], None]) -> None:
        """Run something else that may block (the journal) in the same thread, in its turn."""
        if not self._closed and not self.congested:
            self._pending += 1
            self._thread.submit(self._run, task)

    async def read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """The rows of a query, after everything that was written before it; nothing once closed."""
        if self._closed:
            return []
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, sql, parameters)

    async def close(self) -> None:
        """Write what still waits, then close."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # Everything below runs in the thread.

    def _open(self) -> None:
        try:
            self._connection = self._connect(str(self._path))
        except (sqlite3.Error, OSError) as damage:
            self._connection = self._begin_anew(damage)

    def _connect(self, name: str) -> sqlite3.Connection:
        if name != ":memory:":
            self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(name, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            # NORMAL in WAL: a power cut may cost the last lines, never the file, and no line waits for the disk.
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-256", "journal_size_limit=1048576"):
                connection.execute(f"PRAGMA {pragma}")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"database disk image is malformed: {verdict}")
            connection.executescript(self._schema)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_anew(self, damage: Exception) -> sqlite3.Connection:
        aside = self._path.with_name(self._path.name + ".damaged")
        try:
            for ending in ("", "-wal", "-shm"):
                part = Path(str(self._path) + ending)
                if part.exists():
                    part.replace(Path(str(aside) + ending))
            connection = self._connect(str(self._path))
        except (sqlite3.Error, OSError) as again:
            self._report(f"{self._path} cannot be used ({again}): entries are kept in memory until safekitd restarts")
            return self._connect(":memory:")
        self._report(f"{self._path} was damaged ({damage}): set aside as {aside.name}, a new file was begun")
        return connection

    def _write(self, statements: Sequence[Statement], durable: bool) -> None:
        self._pending -= 1
        try:
            self._execute(statements)
            if durable and self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(FULL)")
            self._failing = False
        except sqlite3.Error as trouble:
            if any(sign in str(trouble) for sign in _DAMAGED):
                if self._connection is not None:
                    self._connection.close()
                self._connection = self._begin_anew(trouble)
                self._execute(statements)
            elif not self._failing:
                self._failing = True
                self._report(f"{self._path} cannot be written ({trouble}): entries are lost until it can")

    def _execute(self, statements: Sequence[Statement]) -> None:
        assert self._connection is not None, "open() comes first"
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, parameters in statements:
                self._connection.execute(sql, parameters)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _run(self, task: Callable[[], None]) -> None:
        self._pending -= 1
        task()

    def _read(self, sql: str, parameters: Sequence[object]) -> list[tuple[object, ...]]:
        assert self._connection is not None, "open() comes first"
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as trouble:
            self._report(f"{self._path} cannot be read ({trouble})")
            return []

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
