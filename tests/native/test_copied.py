"""A full copy that is interrupted goes on where it was: what was durable on the secondary, and was not modified since, is
neither sent nor compared again."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from safekit.replication import DataPlaneProcess
from tests.native.pair import Pair, in_mirror, in_thread, opened
from tests.native.test_dirty import give
from tests.native.trees import assert_equal

FOLDERS, FILES, SIZE = 8, 20, 16_000
LARGE = 3 << 20
SMALL = FOLDERS * FILES * SIZE
RATE_KB, STILL_KB = 4000, 20
RECORD = 32
RECORDS = FOLDERS * FILES


@pytest.fixture
async def slow(tmp_path: Path, binary: Path) -> AsyncIterator[Pair]:
    """A primary with a tree that takes some seconds to copy, and an empty secondary."""
    made = Pair(tmp_path, binary)
    for side in (made.a, made.b):
        side.settings = replace(side.settings, options=("--resync-bandwidth", str(RATE_KB)))
        side.process = DataPlaneProcess(side.settings, systemd=False)
    for folder in range(FOLDERS):
        (made.a.data / f"folder{folder}").mkdir()
        for number in range(FILES):
            (made.a.data / f"folder{folder}" / f"file{number}").write_bytes(os.urandom(SIZE))
    (made.a.data / "large").write_bytes(os.urandom(LARGE))
    async with opened(made):
        await made.serve()
        await made.connect()
        yield made


async def copied(pair: Pair, share: float) -> None:
    """Until so many records, of small files or of parts of the large one, as this share of the small files; then it nearly
    stands still, whatever time the test takes for what comes next.
    """
    memory = pair.a.settings.state_dir / "rfs.copied"

    def is_remembered() -> bool:
        return memory.stat().st_size >= (1 + share * RECORDS) * RECORD

    await pair.a.plane.limit(RATE_KB)
    # no more than that is sent before the secondary has said that it is on its disk
    await pair.a.until(lambda status: is_remembered() or status.bytes_done >= (share + 0.1) * (SMALL + LARGE))
    await pair.a.plane.limit(500)
    async with asyncio.timeout(30):
        while not is_remembered():
            await asyncio.sleep(0.02)
    await pair.a.plane.limit(STILL_KB)


async def secondary_killed(pair: Pair) -> None:
    await pair.b.kill()
    await pair.a.until(lambda status: status.peer == "none")
    await pair.b.restart()


async def secondary_lost_its_power(pair: Pair) -> None:
    await pair.b.kill()
    give(pair.b, "--boot-id", "after the power came back")
    await pair.a.until(lambda status: status.peer == "none")
    await pair.b.restart()


async def primary_killed(pair: Pair) -> None:
    await pair.a.kill()
    await pair.b.plane.idle()
    await pair.a.restart()
    await pair.a.plane.primary(generation="3")


async def connection_ended(pair: Pair) -> None:
    await pair.a.plane.disconnect()
    await pair.b.plane.idle()


async def both_killed(pair: Pair) -> None:
    await pair.a.kill()
    await pair.b.kill()
    await pair.a.restart()
    await pair.b.restart()
    await pair.a.plane.primary(generation="3")


Interruption = Callable[[Pair], Awaitable[None]]
INTERRUPTIONS = [secondary_killed, secondary_lost_its_power, primary_killed, connection_ended, both_killed]


async def go_on(pair: Pair) -> int:
    """Bytes that the primary sends for it until the mirror."""
    before = (await pair.a.plane.stats())["resync_sent_bytes"]
    await pair.listen(pair.b)
    await pair.a.plane.limit(0)
    connected = await pair.connect()
    assert not connected.incremental
    await in_mirror(pair.a)
    return int((await pair.a.plane.stats())["resync_sent_bytes"]) - int(before)


@pytest.mark.parametrize("interrupt", INTERRUPTIONS, ids=lambda interrupt: interrupt.__name__)
async def test_an_interrupted_copy_goes_on_where_it_was(slow: Pair, interrupt: Interruption) -> None:
    await copied(slow, 0.5)
    await interrupt(slow)
    sent = await go_on(slow)
    assert sent < 0.85 * (SMALL + LARGE), f"{sent} bytes of {SMALL + LARGE} were sent again"
    await slow.a.plane.handover()
    assert_equal(slow.a.data, slow.b.data)


@pytest.mark.parametrize("interrupt", INTERRUPTIONS[:3], ids=lambda interrupt: interrupt.__name__)
async def test_what_was_modified_since_is_copied_again(slow: Pair, interrupt: Interruption) -> None:
    data = slow.a.data

    def modify(folder: int) -> None:
        (data / f"folder{folder}" / "file3").write_bytes(b"shorter")
        with open(data / f"folder{folder}" / "file4", "r+b") as file:
            file.seek(9000)
            file.write(b"changed in place")
        os.rename(data / f"folder{folder}" / "file5", data / f"folder{folder}" / "file6")
        os.rename(data / f"folder{folder}" / "file7", data / f"moved{folder}")
        os.link(data / f"folder{folder}" / "file8", data / f"linked{folder}")
        os.unlink(data / f"folder{folder}" / "file9")
        (data / f"folder{folder}" / "file9").write_bytes(os.urandom(SIZE))
        os.chmod(data / f"folder{folder}" / "file10", 0o640)
        os.truncate(data / f"folder{folder}" / "file11", 100)
        with open(data / "large", "r+b") as file:
            file.seek(folder * 350_000)
            file.write(b"changed in place")

    await copied(slow, 0.2)
    for folder in range(0, FOLDERS, 2):
        await in_thread(partial(modify, folder))
    await copied(slow, 0.5)
    await interrupt(slow)
    for folder in range(1, FOLDERS, 2):
        await in_thread(partial(modify, folder))
    # the same names, other files: only what they are called tells them apart
    await in_thread(lambda: os.rename(data / "folder0", data / "folder"))
    await in_thread(lambda: os.rename(data / "folder1", data / "folder0"))
    await in_thread(lambda: os.rename(data / "folder", data / "folder1"))
    sent = await go_on(slow)
    assert sent < 0.95 * (SMALL + LARGE)
    await slow.a.plane.handover()
    assert_equal(slow.a.data, slow.b.data)


async def test_a_copy_can_be_interrupted_again_and_again(slow: Pair) -> None:
    for share in (0.2, 0.4, 0.6):
        await copied(slow, share)
        await secondary_killed(slow)
        await slow.listen(slow.b)
        await slow.connect()
    await slow.a.plane.limit(0)
    await in_mirror(slow.a)
    sent = int((await slow.a.plane.stats())["resync_sent_bytes"])
    assert sent < 2 * (SMALL + LARGE)
    await slow.a.plane.handover()
    assert_equal(slow.a.data, slow.b.data)


async def test_what_is_missing_all_the_same_is_found(slow: Pair) -> None:
    await copied(slow, 0.5)
    await slow.b.kill()
    await slow.a.until(lambda status: status.peer == "none")
    await slow.b.restart()
    await slow.b.plane.idle()
    for folder in range(FOLDERS):
        shutil.rmtree(slow.b.data / f"folder{folder}", ignore_errors=True)
    await go_on(slow)
    await slow.a.plane.handover()
    assert_equal(slow.a.data, slow.b.data)


async def test_a_primary_that_lost_its_power_remembers_no_copy(slow: Pair) -> None:
    await copied(slow, 0.5)
    await slow.a.kill()
    await slow.b.plane.idle()
    give(slow.a, "--boot-id", "after the power came back")
    await slow.a.restart()
    await slow.a.plane.primary(generation="3")
    sent = await go_on(slow)
    assert sent > SMALL
    await slow.a.plane.handover()
    assert_equal(slow.a.data, slow.b.data)


async def test_who_asks_for_everything_gets_everything(slow: Pair) -> None:
    await copied(slow, 0.5)
    await connection_ended(slow)
    await slow.listen(slow.b)
    before = int((await slow.a.plane.stats())["resync_sent_bytes"])
    await slow.a.plane.limit(0)
    await slow.connect(full=True)
    await in_mirror(slow.a)
    assert int((await slow.a.plane.stats())["resync_sent_bytes"]) - before > SMALL
    await slow.a.plane.handover()
    assert_equal(slow.a.data, slow.b.data)
