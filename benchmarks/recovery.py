"""The rows about coming back, and about memory: how long a copy takes until it is a copy again, and what a data plane
needs to know so much.

Only ours does these; one has a bound beside it. Each function makes a pair of its own below the folder that it is given
and tells each figure when it has it: what fails or takes too long costs only what comes after."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.places import BINARY, BOUND, ENCRYPTED, OURS, PROGRAMS, unencrypted
from benchmarks.scratch import working
from benchmarks.workloads import MIB, Measure, run_json
from safekit.replication import Status
from tests.native.pair import Pair, Side, opened
from tests.native.test_dirty import give

Tell = Callable[[str, str, Measure], None]
"""Takes a row, a system and its figure."""
Recovery = Callable[[Path, "Extent", Tell], Awaitable[None]]

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
    words = [[str(PROGRAMS / "files"), "tree", str(folder), *_counts(files)] for folder in folders]
    making = [working(folder, partial(run_json, line)) for folder, line in zip(folders, words, strict=True)]
    await asyncio.gather(*making)


def _counts(files: int) -> tuple[str, str]:
    return str(max(1, files // _PER_FOLDER)), str(min(files, _PER_FOLDER))


# ---- one large file ----


async def reintegration(folder: Path, extent: Extent, tell: Tell) -> None:
    """MB per second of a file that the secondary lacks, until it is durable there, without encryption and with it; and
    of the same file by a plain copy over TCP."""
    folder.mkdir()
    large = folder / "large"
    some = os.urandom(MIB)
    with large.open("wb", buffering=0) as file:
        for _ in range(extent.file):
            file.write(some)
        os.fsync(file.fileno())

    async def copied(pair: Pair) -> float:
        async with opened(pair):
            os.link(large, pair.a.data / "large")
            await pair.serve()
            began = time.monotonic()
            await pair.connect()
            seconds, _ = await in_mirror_since(pair.a, began)
            await pair.a.plane.handover()
        shutil.rmtree(pair.a.folder.parent)
        return extent.file * MIB / seconds / 1e6

    for number in range(extent.rounds):
        copy = folder / "copy"
        words = [str(PROGRAMS / "bound"), "copy", str(large), str(copy), str(MIB)]
        found = await working(folder, partial(run_json, words))
        copy.unlink()
        tell("reintegration", BOUND, Measure(found["bytes"] / found["seconds"] / 1e6))
        tell("reintegration", OURS, Measure(await copied(unencrypted(Pair(folder / f"plain{number}", BINARY)))))
        tell("reintegration", ENCRYPTED, Measure(await copied(Pair(folder / f"encrypted{number}", BINARY))))


# ---- large trees ----


async def rejoin(folder: Path, extent: Extent, tell: Tell) -> None:
    """After a crash of the primary in a small tree: see `million` for a large one."""
    async with opened(Pair(folder, BINARY)) as pair:
        await _tree((pair.a.data, pair.b.data), extent.small)
        await pair.serve()
        await pair.mirror()
        seconds, share = await _crash_and_rejoin(pair, extent.small)
        tell("rejoin", OURS, seconds)
        tell("rejoin-share", OURS, share)


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


async def million(folder: Path, extent: Extent, tell: Tell) -> None:
    """A tree of many files: compared whole, a hundred changes after a clean stop, after a crash, and known by the data
    plane."""
    async with opened(Pair(folder, BINARY)) as pair:
        a, b = pair.a, pair.b
        began = time.monotonic()
        await _tree((a.data, b.data), extent.files)
        making = time.monotonic() - began
        await pair.serve()
        began = time.monotonic()
        await pair.connect()
        seconds, _ = await in_mirror_since(a, began)
        tell("compare", OURS, Measure(extent.files / seconds, {"seconds": seconds, "making_the_tree_s": making}))

        await alone(pair)
        await asyncio.to_thread(_change, a.data, extent.files)
        await pair.listen(b)
        began = time.monotonic()
        connected = await pair.connect()
        seconds, status = await in_mirror_since(a, began)
        more = {"files": float(status.files_done), "walked": float(not connected.incremental)}
        tell("changed", OURS, Measure(seconds, more))

        rejoined, share = await _crash_and_rejoin(pair, extent.files)
        tell("crash", OURS, rejoined)
        tell("crash-share", OURS, share)
        tell("known", OURS, await _know(b, extent.files))


async def _know(side: Side, files: int) -> Measure:
    """MiB of a data plane whose application asked for every file of a tree."""
    before = (await side.plane.status()).memory_kb / 1024
    words = [str(PROGRAMS / "files"), "look", str(side.data), *_counts(files)]
    looked = await working(side.folder, partial(run_json, words, 180.0))
    known = (await side.plane.status()).memory_kb / 1024
    return Measure(known, {"before_mb": before, "files_per_s": looked["look"]})


def _change(data: Path, files: int) -> None:
    folders = max(1, files // _PER_FOLDER)
    for number in range(100):
        (data / f"d{number * 7 % folders}" / f"f{number}").write_text(f"changed {number}")


# ---- memory of a large file ----


async def terabyte(folder: Path, _: Extent, tell: Tell) -> None:
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
    tell("terabyte", OURS, Measure(status.memory_kb / 1024))


def room_for(folder: Path) -> float:
    """GiB that are free where the benchmark works."""
    return shutil.disk_usage(folder).free / (1 << 30)


def drop_build() -> None:
    """Writes everything back: what one row left unwritten must not be paid by the next."""
    subprocess.run(["sync"], check=True)
