"""Reintegration at scale: one huge sparse file of which a little changed, and what it costs an application beside it."""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import time
from functools import partial
from pathlib import Path

from benchmarks.databases import SESSIONS, PostgreSQL, as_user, programs
from benchmarks.places import BINARY, OURS, Place
from benchmarks.recovery import Extent, Tell, alone, drop_build, in_mirror_since
from benchmarks.scratch import working
from benchmarks.workloads import FULL, MIB, QUICK, Measure
from tests.native.pair import Pair, opened

_ZONE = 128 << 10
"""Of a data plane that is not told otherwise (spec: ruzone_blocksize)."""
_CHANGES = 50


def _written(pid: int) -> int:
    """Bytes that a process handed to files."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["wchar"])


async def sparse(folder: Path, extent: Extent, tell: Tell) -> None:
    """MiB that a secondary writes after fifty small changes in a sparse file (20 GiB; smaller in a quick run)."""
    size = extent.sparse << 30

    def make(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            file.truncate(size)
            for number in range(256):
                file.seek(number * (size // 256))
                file.write(os.urandom(MIB))

    def change(path: Path) -> None:
        with path.open("r+b", buffering=0) as file:
            for number in range(_CHANGES):
                file.seek((number * 5 + 2) * (size // 256) + 70_000)
                file.write(b"changed")

    async with opened(Pair(folder, BINARY)) as pair:
        # bytes that were there before are counted apart: made below, not through the mount
        await asyncio.to_thread(make, pair.a.data / "sparse")
        await pair.serve()
        await pair.mirror()
        await alone(pair)
        await asyncio.to_thread(change, pair.a.data / "sparse")
        await pair.listen(pair.b)
        before = _written((await pair.b.plane.status()).pid)
        began = time.monotonic()
        connected = await pair.connect()
        seconds, _ = await in_mirror_since(pair.a, began)
        written = _written((await pair.b.plane.status()).pid) - before
        if (pair.b.data / "sparse").stat().st_blocks * 512 > 300 * MIB:
            raise RuntimeError("the holes of the sparse file were filled")
    more = {"seconds": seconds, "limit_mib": _CHANGES * _ZONE / MIB, "walked": float(not connected.incremental)}
    tell("sparse", OURS, Measure(written / MIB, more))


# ---- beside an application ----


def _percentile(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98] if len(latencies) > 1 else 0.0


class Sessions:
    """pgbench for some seconds, every transaction noted with its end and its latency."""

    def __init__(self, connect: list[str], logs: Path) -> None:
        self._connect, self._logs = connect, logs

    def run(self, seconds: int) -> list[tuple[float, float]]:
        """(seconds since the epoch, latency in ms) of every transaction."""
        for old in self._logs.glob("note.*"):
            old.unlink()
        words = [str(programs() / "pgbench"), "-n", "-c", str(SESSIONS), "-j", "2", "-T", str(seconds), "-l"]
        as_user([*words, f"--log-prefix={self._logs / 'note'}", *self._connect, "postgres"])
        lines = [line.split() for log in self._logs.glob("note.*") for line in log.read_text().splitlines()]
        return [(int(words[4]) + int(words[5]) / 1e6, int(words[2]) / 1000) for words in lines]


async def cost(folder: Path, extent: Extent, tell: Tell) -> None:
    """pgbench's p99 while a large file is reintegrated, against its p99 in a quiet mirror; and the rate of that
    reintegration against the same without pgbench. All four of a round are measured within some seconds."""
    shared = folder.with_name(f"{folder.name}-shared")
    shared.mkdir()
    shared.chmod(0o755)
    size = extent.file * MIB

    def write(path: Path) -> None:
        # every zone differs each time, and what the primary has not written yet is no part of a reintegration
        some = os.urandom(MIB)
        with path.open("wb", buffering=0) as file:
            for _ in range(extent.file):
                file.write(some)
            os.fsync(file.fileno())

    async def reintegrate(pair: Pair) -> tuple[float, float]:
        """When it began, in seconds since the epoch, and how many it took."""
        began, since = time.monotonic(), time.time()
        await pair.connect()
        seconds, _ = await in_mirror_since(pair.a, began)
        return since, seconds

    async def apart(pair: Pair) -> None:
        await alone(pair)
        await asyncio.to_thread(write, pair.a.data / "large")
        # what is written back because of the write itself is no cost of the copy
        await asyncio.to_thread(drop_build)
        await pair.listen(pair.b)

    async with opened(Pair(folder, BINARY, ack_timeout=60.0)) as pair:
        write(pair.a.data / "large")  # there before: a file that grows costs more than one that changes
        await pair.serve()
        await pair.mirror()
        folder.chmod(0o755)
        place = Place(OURS, folder, pair.a.data)
        with PostgreSQL(shared).serving(place, QUICK if extent.quick else FULL) as connect:
            sessions = Sessions(connect, folder / "postgresql.run")

            async def noted(seconds: int) -> list[tuple[float, float]]:
                return await working(folder, partial(sessions.run, seconds))

            for _ in range(extent.rounds):
                quiet = _percentile([latency for _, latency in await noted(2 if extent.quick else 4)])
                await apart(pair)
                _, seconds = await reintegrate(pair)
                free = size / seconds / 1e6
                await apart(pair)
                # longer than the copy at half of its rate
                beside = asyncio.create_task(noted(math.ceil(seconds * 2.2) + 2))
                await asyncio.sleep(1.0)
                since, seconds = await reintegrate(pair)
                loaded = size / seconds / 1e6
                during = _percentile([latency for at, latency in await beside if since <= at <= since + seconds])
                more = {"quiet_p99_ms": quiet, "during_p99_ms": during}
                tell("cost", OURS, Measure(during / quiet if quiet else 0.0, more))
                tell("cost-rate", OURS, Measure(loaded / free, {"alone_mb_s": free, "beside_mb_s": loaded}))
