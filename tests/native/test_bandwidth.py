"""`reiallowedbw`: what a resynchronisation copies stays below a rate; what the application writes does not wait for it."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from safekit.replication import DataPlaneProcess
from tests.native.pair import Pair, in_mirror, in_thread, opened
from tests.native.trees import assert_equal

RATE_KB = 4000
SIZE = 12_000_000


@pytest.fixture
async def slow(tmp_path: Path, binary: Path) -> AsyncIterator[Pair]:
    """A pair whose resynchronisation is limited."""
    made = Pair(tmp_path, binary)
    for side in (made.a, made.b):
        side.settings = replace(side.settings, options=("--resync-bandwidth", str(RATE_KB)))
        side.process = DataPlaneProcess(side.settings, systemd=False)
    async with opened(made):
        await made.start()
        yield made


async def test_a_limited_resynchronisation_takes_its_time_and_no_application_does(slow: Pair) -> None:
    (slow.a.data / "big").write_bytes(os.urandom(SIZE))
    for number in range(50):
        (slow.a.data / f"small {number}").write_bytes(os.urandom(9000))
    await slow.serve()
    begun = time.monotonic()
    await slow.connect(full=True)

    def write() -> float:
        waited = 0.0
        for number in range(20):
            before = time.monotonic()
            (slow.a.data / f"live {number}").write_bytes(b"x" * 4096)
            waited = max(waited, time.monotonic() - before)
            time.sleep(0.05)
        return waited

    slowest = await in_thread(write)
    await in_mirror(slow.a)
    took = time.monotonic() - begun
    least = (SIZE + 50 * 9000) / (RATE_KB * 1024)
    assert took > 0.85 * least, f"{took:.2f} s, and {least:.2f} s is what the rate allows"
    assert took < 3 * least + 5
    assert slowest < 1.0
    await slow.a.plane.handover()
    assert_equal(slow.a.data, slow.b.data)


def _syncs(histogram: int | str) -> int:
    return sum(int(count) for count in str(histogram).split(","))


async def test_a_secondary_that_is_no_mirror_yet_syncs_no_single_file(slow: Pair) -> None:
    (slow.a.data / "big").write_bytes(os.urandom(SIZE))
    await slow.serve()
    await slow.a.plane.limit(100)  # two minutes, were it not raised again
    await slow.connect(full=True)

    def commit() -> None:
        with open(slow.a.data / "log", "wb", buffering=0) as log:
            for number in range(300):
                log.write(b"%d" % number)
                os.fsync(log.fileno())

    before = _syncs((await slow.b.plane.stats())["sync_histogram"])
    await in_thread(commit)
    assert (await slow.a.plane.status()).peer == "resync"
    # everything together, once in a second at most
    assert _syncs((await slow.b.plane.stats())["sync_histogram"]) - before < 150
    await slow.a.plane.limit(0)
    await in_mirror(slow.a)
    before = _syncs((await slow.b.plane.stats())["sync_histogram"])
    await in_thread(commit)
    assert _syncs((await slow.b.plane.stats())["sync_histogram"]) - before >= 300
    await slow.a.plane.handover()
    assert_equal(slow.a.data, slow.b.data)
