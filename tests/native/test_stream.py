"""The stream between the two nodes: what is applied side by side, what survives a broken connection, what is measured."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from safekit.replication import PeerLost
from tests.native.pair import Pair, beside, in_thread
from tests.native.trees import assert_equal


def heavy_writer(path: Path, seed: int, stop: threading.Event) -> None:
    """Large and small writes, truncations and syncs on one file, over and over at the same places."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not stop.is_set():
            size, offset = rng.choice((4096, 100, 1 << 20, 300_000)), rng.randrange(0, 3 << 20)
            os.pwrite(fd, rng.randbytes(64) * (size // 64 + 1), offset)
            if rng.random() < 0.2:
                os.ftruncate(fd, rng.randrange(4 << 20))
            if rng.random() < 0.1:
                os.fsync(fd)
            if rng.random() < 0.1:
                os.utime(fd, ns=(1, rng.randrange(1 << 40)))
    finally:
        os.close(fd)


def renamer(folder: Path, seed: int, stop: threading.Event) -> None:
    """Files that are made, written, renamed over each other and removed while others are written."""
    rng = random.Random(seed)
    while not stop.is_set():
        one, other = folder / f"n{rng.randrange(5)}", folder / f"n{rng.randrange(5)}"
        one.write_bytes(rng.randbytes(rng.choice((10, 5000, 200_000))))
        os.rename(one, other)
        if rng.random() < 0.3:
            os.unlink(other)


async def run_all(works: list[Callable[[threading.Event], None]], seconds: float) -> None:
    stop = threading.Event()
    tasks = [beside(lambda work=work: work(stop)) for work in works]  # type: ignore[misc]
    await in_thread(lambda: time.sleep(seconds))
    stop.set()
    for task in tasks:
        await task


async def test_files_that_are_applied_side_by_side_end_as_each_was_written(mirrored: Pair) -> None:
    data = mirrored.a.data
    for name in ("x", "y"):
        (data / name).mkdir()
    works: list[Callable[[threading.Event], None]] = [
        *[lambda stop, i=i: heavy_writer(data / f"heavy{i}", i, stop) for i in range(3)],  # type: ignore[misc]
        lambda stop: heavy_writer(data / "heavy0", 99, stop),
        lambda stop: renamer(data / "x", 7, stop),
        lambda stop: renamer(data / "y", 8, stop),
    ]
    await run_all(works, 4.0)
    assert (await mirrored.a.plane.status()).peer == "mirror", mirrored.a.events
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)


async def test_a_secondary_that_is_told_to_stop_under_load_stops_at_once(mirrored: Pair) -> None:
    stop = threading.Event()
    works = [beside(lambda i=i: heavy_writer(mirrored.a.data / f"f{i}", i, stop)) for i in range(3)]  # type: ignore[misc]
    await mirrored.a.until(lambda status: status.applied > 200)
    began = time.monotonic()
    await mirrored.b.plane.idle()
    assert time.monotonic() - began < 10
    await mirrored.a.told(PeerLost)
    await mirrored.a.plane.alone(generation="3")
    stop.set()
    for work in works:
        await work
