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


async def test_the_data_plane_counts_what_it_sends_and_how_long_it_takes(mirrored: Pair) -> None:
    def write() -> None:
        with open(mirrored.a.data / "file", "wb", buffering=0) as file:
            for _ in range(200):
                file.write(bytes(4096))
            os.fsync(file.fileno())

    await in_thread(write)
    await mirrored.a.until(lambda status: status.pending == 0)
    primary, secondary = await mirrored.a.plane.stats(), await mirrored.b.plane.stats()
    assert int(primary["rep_bytes"]) > 200 * 4096 and int(primary["sent_bytes"]) > 200 * 4096
    assert int(secondary["received_bytes"]) > 200 * 4096
    assert int(primary["netout_bandwidth_bytes"]) > 0 and int(secondary["netin_bandwidth_bytes"]) > 0
    assert 0 < int(primary["wire_p50_us"]) <= int(primary["wire_p99_us"])
    assert sum(int(count) for count in str(primary["wire_histogram"]).split(",")) > 200
    assert sum(int(count) for count in str(secondary["apply_histogram"]).split(",")) > 200
    assert int(secondary["sync_p50_us"]) > 0 and int(primary["queue_count"]) == 0


async def test_more_files_than_half_of_the_descriptors_are_no_trouble_for_the_secondary(mirrored: Pair) -> None:
    def write() -> None:
        for number in range(2000):
            (mirrored.a.data / f"file{number}").write_bytes(b"x")

    pid = mirrored.b.process.pid
    assert pid is not None
    before = len(os.listdir(f"/proc/{pid}/fd"))
    await in_thread(write)
    assert len(os.listdir(f"/proc/{pid}/fd")) - before < 2500
    assert (await mirrored.a.plane.status()).peer == "mirror"
