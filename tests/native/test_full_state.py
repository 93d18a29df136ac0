"""The disk of the data plane's records is full: what they say stays true, and a resync is incremental where it can be."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from safekit.replication import PeerLost
from tests.native.pair import Pair, Side, in_mirror, in_thread, opened
from tests.native.test_activity import crash, takes_over
from tests.native.trees import assert_equal


@pytest.fixture
async def pair(tmp_path: Path, binary: Path) -> AsyncIterator[Pair]:
    """In mirror; the state of `a` lies on a small file system of its own."""
    made = Pair(tmp_path, binary)
    state = made.a.folder / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", state], check=True)
    try:
        async with opened(made):
            await made.serve()
            await made.mirror()
            yield made
    finally:
        subprocess.run(["umount", "-l", state], check=True)


def _fill(side: Side) -> None:
    with (side.folder / "state" / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC


def _make_room(side: Side) -> None:
    (side.folder / "state" / "filler").unlink()


def _work(root: Path, turn: int) -> None:
    (root / f"folder {turn}").mkdir()
    for number in range(300):
        (root / f"folder {turn}" / f"f{number}").write_bytes(os.urandom(100))
    for number in range(0, 300, 7):
        os.rename(root / f"folder {turn}" / f"f{number}", root / f"turn {turn} {number}")


async def test_a_mirror_on_a_full_disk_rejoins_by_its_log_after_a_crash(pair: Pair) -> None:
    a, b = pair.a, pair.b
    await in_thread(lambda: _work(a.data, 1))
    await in_thread(lambda: _fill(a))
    await in_thread(lambda: _work(a.data, 2))
    await a.kill()
    _make_room(a)
    await a.restart()
    await takes_over(pair, b, a)
    await in_mirror(b)
    await b.plane.handover()
    assert_equal(a.data, b.data)


async def _changes_alone_on_a_full_disk(pair: Pair) -> None:
    await pair.b.plane.idle()
    await pair.a.told(PeerLost)
    await pair.a.plane.alone(generation="3")
    await in_thread(lambda: _fill(pair.a))
    await in_thread(lambda: _work(pair.a.data, 1))


async def test_what_is_changed_alone_on_a_full_disk_is_found_without_a_full_resync(pair: Pair) -> None:
    a, b = pair.a, pair.b
    await _changes_alone_on_a_full_disk(pair)
    _make_room(a)  # its own record could not be kept: a stop in order writes it anew
    await a.plane.idle()
    await a.process.stop()
    await a.restart()
    await a.plane.primary(generation="4")
    await pair.listen(b)
    connected = await pair.connect()
    assert connected.incremental, connected.reason
    await in_mirror(a)
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_crash_while_the_record_of_changes_could_not_be_kept_leads_to_a_full_resync(pair: Pair) -> None:
    a, b = pair.a, pair.b
    await _changes_alone_on_a_full_disk(pair)
    await crash(a, power=False)
    _make_room(a)
    await a.plane.primary(generation="4")
    await pair.listen(b)
    connected = await pair.connect()
    await in_mirror(a)
    await a.plane.handover()
    assert_equal(a.data, b.data)
    assert not connected.incremental
