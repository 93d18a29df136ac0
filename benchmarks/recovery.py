"""The rows about coming back, and about memory: how long a copy takes until it is a copy again, and what a data plane
needs to know so much.

Only ours does these; one has a bound beside it. Each function makes a pair of its own below the folder that it is given
and returns `{row: {system: measure}}`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.places import BINARY, BOUND, OURS, PROGRAMS, unencrypted
from benchmarks.workloads import MIB, Measure, run_json
from safekit.replication import Status
from tests.native.pair import Pair, Side, opened
from tests.native.test_dirty import give

Found = dict[str, dict[str, Measure | str]]
"""A text says why there is no figure."""
Recovery = Callable[[Path, "Extent"], Awaitable[Found]]

_LIMIT_S = 300.0
_PER_FOLDER = 1000
_COOL_S = 4.0


@dataclass(frozen=True)
class Extent:
    """How much: `file` MiB of one large file, `sparse` GiB of one with holes, `files` of a large tree, `small` of a
    small one, `rounds` where a round is short."""

    file: int
    sparse: int
    files: int
    small: int
    rounds: int
    quick: bool


async def in_mirror_since(side: Side, began: float) -> tuple[float, Status]:
    """Seconds since `began` until a primary is in mirror, and its status then."""
    status = await side.until(lambda status: status.peer == "mirror", _LIMIT_S)
    return time.monotonic() - began, status


async def alone(pair: Pair) -> None:
    """The secondary stops in order, and the primary goes on without it."""
    await pair.b.plane.idle()
    await pair.a.until(lambda status: status.peer == "lost")
    await pair.a.plane.alone(generation="3")


async def _tree(folders: tuple[Path, ...], files: int) -> None:
    """The same tree of empty files in each folder."""
    counts = (str(max(1, files // _PER_FOLDER)), str(min(files, _PER_FOLDER)))
    making = [await asyncio.create_subprocess_exec(PROGRAMS / "files", "tree", folder, *counts) for folder in folders]
    if any([await process.wait() for process in making]):
        raise RuntimeError("the tree of files could not be made")


# ---- one large file ----


async def reintegration(folder: Path, extent: Extent) -> Found:
    """MB per second of a file that the secondary lacks, until it is durable there; and of the same file by a plain copy
    over TCP."""
    folder.mkdir()
    large = folder / "large"
    some = os.urandom(MIB)
    with large.open("wb", buffering=0) as file:
        for _ in range(extent.file):
            file.write(some)
        os.fsync(file.fileno())
    ours, bound = [], []
    for number in range(extent.rounds):
        copy = folder / "copy"
        found = await asyncio.to_thread(run_json, [str(PROGRAMS / "bound"), "copy", str(large), str(copy), str(MIB)])
        bound.append(found["bytes"] / found["seconds"] / 1e6)
        copy.unlink()
        async with opened(unencrypted(Pair(folder / f"pair{number}", BINARY))) as pair:
            os.link(large, pair.a.data / "large")
            await pair.serve()
            began = time.monotonic()
            await pair.connect()
            seconds, _ = await in_mirror_since(pair.a, began)
            ours.append(extent.file * MIB / seconds / 1e6)
            await pair.a.plane.handover()
        shutil.rmtree(folder / f"pair{number}")
    return {"reintegration": {OURS: _median(ours), BOUND: _median(bound)}}


def _median(values: list[float]) -> Measure:
    ordered = sorted(values)
    return Measure(ordered[len(ordered) // 2], {"low": ordered[0], "high": ordered[-1]})


# ---- large trees ----


async def rejoin(folder: Path, extent: Extent) -> Found:
    """After a crash of the primary in a small tree: see `million` for a large one."""
    async with opened(Pair(folder, BINARY)) as pair:
        await _tree((pair.a.data, pair.b.data), extent.small)
        await pair.serve()
        await pair.mirror()
        seconds, share = await _crash_and_rejoin(pair, extent.small)
        return {"rejoin": {OURS: seconds}, "rejoin-share": {OURS: share}}


async def _crash_and_rejoin(pair: Pair, files: int) -> tuple[Measure, Measure]:
    """Seconds from the connection to the mirror after the machine of the primary crashed and its peer took over, and
    how much of a tree of `files` was compared for it."""

    def write() -> None:
        for number in range(20):
            (pair.a.data / f"hot{number}").write_bytes(os.urandom(64 << 10))

    # what the mirror began with is on both disks: a crash finds it as a day of quiet leaves it
    await asyncio.sleep(_COOL_S)
    await asyncio.to_thread(write)
    await pair.a.kill()
    await pair.b.plane.primary(generation="5")
    give(pair.a, "--boot-id", "after the crash")
    await pair.a.restart()
    await pair.listen(pair.a)
    began = time.monotonic()
    connected = await pair.connect(pair.b)
    seconds, status = await in_mirror_since(pair.b, began)
    more = {"files": float(status.files_done), "walked": float(not connected.incremental)}
    return Measure(seconds, more), Measure(status.files_done / files)


async def million(folder: Path, extent: Extent) -> Found:
    """A tree of many files: compared whole, a hundred changes after a clean stop, known by the data plane, and after a
    crash."""
    found: Found = {}
    async with opened(Pair(folder, BINARY)) as pair:
        a, b = pair.a, pair.b
        await _tree((a.data, b.data), extent.files)
        await pair.serve()
        began = time.monotonic()
        await pair.connect()
        seconds, _ = await in_mirror_since(a, began)
        found["compare"] = {OURS: Measure(extent.files / seconds, {"seconds": seconds})}

        await alone(pair)
        await asyncio.to_thread(_change, a.data, extent.files)
        await pair.listen(b)
        began = time.monotonic()
        connected = await pair.connect()
        seconds, status = await in_mirror_since(a, began)
        more = {"files": float(status.files_done), "walked": float(not connected.incremental)}
        found["changed"] = {OURS: Measure(seconds, more)}

        rejoined, share = await _crash_and_rejoin(pair, extent.files)
        found["crash"], found["crash-share"] = {OURS: rejoined}, {OURS: share}
        found["known"] = {OURS: await _know(b, extent.files)}
    return found


async def _know(side: Side, files: int) -> Measure | str:
    """MiB of a data plane whose application asked for every file of a tree."""
    before = (await side.plane.status()).memory_kb / 1024
    counts = (str(max(1, files // _PER_FOLDER)), str(min(files, _PER_FOLDER)))
    try:
        looked = await asyncio.to_thread(run_json, [str(PROGRAMS / "files"), "look", str(side.data), *counts], 180.0)
    except RuntimeError as error:
        return str(error)
    known = (await side.plane.status()).memory_kb / 1024
    return Measure(known, {"before_mb": before, "files_per_s": looked["look"]})


def _change(data: Path, files: int) -> None:
    folders = max(1, files // _PER_FOLDER)
    for number in range(100):
        (data / f"d{number * 7 % folders}" / f"f{number}").write_text(f"changed {number}")


# ---- memory of a large file ----


async def terabyte(folder: Path, _: Extent) -> Found:
    """MiB of a data plane that tracks 20,000 scattered changes in a sparse file of 1 TiB while it is alone."""

    def scatter(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            file.truncate(1 << 40)
            for number in range(20_000):
                file.seek((number * 2_654_435_761 * 131_072) % (1 << 40))
                file.write(b"changed")

    async with opened(Pair(folder, BINARY)) as pair:
        await pair.serve()
        await pair.mirror()
        await alone(pair)
        await asyncio.to_thread(scatter, pair.a.data / "sparse")
        status = await pair.a.plane.status()
    return {"terabyte": {OURS: Measure(status.memory_kb / 1024)}}


def room_for(folder: Path) -> float:
    """GiB that are free where the benchmark works."""
    return shutil.disk_usage(folder).free / (1 << 30)


def drop_build() -> None:
    """Writes everything back: what one row left unwritten must not be paid by the next."""
    subprocess.run(["sync"], check=True)
