"""The rows of two databases: PostgreSQL's pgbench, which commits from several sessions, and SQLite with a rollback
journal, which creates, syncs and removes a file for each transaction."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.places import BOUND, Place
from benchmarks.workloads import Measure, NotRun, Scale

USER = "postgres"
SESSIONS = 4
_SETTINGS = """
max_wal_size = 4GB
checkpoint_timeout = 30min
autovacuum = off
listen_addresses = ''
"""


def programs() -> Path:
    """Where PostgreSQL's programs are, the newest of those installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise NotRun("PostgreSQL with pgbench not installed (Debian: postgresql)")
    return found[-1].parent


def as_user(words: list[str], limit: float = 120.0) -> str:
    """Runs one of PostgreSQL's programs; what it printed. RuntimeError with its last words when it failed."""
    user = pwd.getpwnam(USER)
    try:
        ended = subprocess.run(
            words,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{Path(words[0]).name} was not done after {limit:.0f} s") from error
    if ended.returncode:
        raise RuntimeError(f"{Path(words[0]).name}: {(ended.stderr or ended.stdout).strip()[-300:]}")
    return ended.stdout


class PostgreSQL:
    """A cluster that is made once, and copied to each place where it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._origin = folder / "postgresql"

    @contextlib.contextmanager
    def serving(self, place: Place, scale: Scale) -> Iterator[list[str]]:
        """A server with its data in `place`; the words that connect a program to it. Stopped afterwards, its data stays
        for the next time."""
        if not self._origin.exists():
            self._make(scale)
        data = place.directory / "postgresql"
        if not data.exists():
            subprocess.run(["cp", "-a", str(self._origin), str(data)], check=True, timeout=180)
        sockets = place.folder / "postgresql.run"
        sockets.mkdir(exist_ok=True)
        shutil.chown(sockets, USER)
        with self._running(data, sockets):
            yield ["-h", str(sockets), "-U", USER]

    def _make(self, scale: Scale) -> None:
        bin_ = programs()
        making, sockets = self._origin.with_suffix(".making"), self._origin.with_suffix(".run")
        for folder in (making, sockets):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            shutil.chown(folder, USER)
        as_user([str(bin_ / "initdb"), "-D", str(making), "-A", "trust", "-U", USER, "--no-sync"])
        with (making / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        with self._running(making, sockets):
            words = ["-i", "-q", "-s", str(scale.database), "-h", str(sockets), "-U", USER, "postgres"]
            as_user([str(bin_ / "pgbench"), *words], 300)
        making.rename(self._origin)

    @contextlib.contextmanager
    def _running(self, data: Path, sockets: Path) -> Iterator[None]:
        control = [str(programs() / "pg_ctl"), "-D", str(data), "-s", "-w", "-t", "60"]
        log = str(sockets / "log")
        as_user([*control, "-o", f"-k '{sockets}'", "-l", log, "start"])
        try:
            yield
        finally:
            as_user([*control, "-m", "fast", "stop"])

    def transactions(self, place: Place, scale: Scale) -> Measure:
        """pgbench's own transactions per second, SESSIONS clients."""
        if place.name == BOUND:
            raise NotRun("the bound is no file system")
        with self.serving(place, scale) as connect:
            psql, pgbench = str(programs() / "psql"), str(programs() / "pgbench")
            as_user([psql, "-q", *connect, "-c", "checkpoint", "postgres"])
            seconds = str(max(1, round(scale.transactions)))
            words = [pgbench, "-n", "-c", str(SESSIONS), "-j", "2", "-T", seconds, *connect, "postgres"]
            text = as_user(words)
        tps = re.search(r"tps = ([\d.]+)", text)
        latency = re.search(r"latency average = ([\d.]+)", text)
        if tps is None or latency is None:
            raise RuntimeError(f"pgbench: {text[-200:]}")
        return Measure(float(tps[1]), {"average_ms": float(latency[1])})


def sqlite_transactions(place: Place, scale: Scale) -> Measure:
    """Committed updates per second, one connection, journal_mode=DELETE and synchronous=FULL as they are by default."""
    if place.name == BOUND:
        raise NotRun("the bound is no file system")
    path = place.directory / "sqlite.db"
    for old in (path, Path(f"{path}-journal")):
        old.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    chance, latencies = random.Random(1), []
    with contextlib.closing(connection):
        connection.execute("pragma journal_mode=delete")
        connection.execute("pragma synchronous=full")
        connection.execute("create table t(id integer primary key, text)")
        connection.execute("begin")
        connection.executemany("insert into t values(?, ?)", ((number, "x" * 200) for number in range(2000)))
        connection.execute("commit")
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < scale.seconds:
            change = (f"{chance.random():.60f}", chance.randrange(2000))
            connection.execute("update t set text = ? where id = ?", change)
            latencies.append(time.perf_counter() - now)
        seconds = time.perf_counter() - began
        if connection.execute("pragma integrity_check").fetchone() != ("ok",):
            raise RuntimeError("SQLite finds its file damaged")
    latencies.sort()
    return Measure(len(latencies) / seconds, {"p99_us": latencies[int(len(latencies) * 0.99)] * 1e6})
