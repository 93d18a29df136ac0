"""What changed while a primary was alone is known zone by zone, survives it, and is all that a resync reads and copies."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from safekit.replication import PeerLost
from tests.native.chaos import Background
from tests.native.pair import Pair, Side, in_mirror, in_thread, opened
from tests.native.trees import assert_equal

LIBC = ctypes.CDLL(None, use_errno=True)
COLLAPSE, INSERT, PUNCH_KEEP, ZERO = 0x08, 0x20, 0x03, 0x10


@pytest.fixture
async def fine(tmp_path: Path, binary: Path) -> AsyncIterator[Pair]:
    """A mirror whose zones are as small as they can be."""
    async with opened(Pair(tmp_path, binary)) as pair:
        for side in (pair.a, pair.b):
            give(side, "--zone-size", "65536")
        await pair.serve()
        await pair.mirror()
        yield pair


def give(side: Side, *more: str) -> None:
    """Starts the side with further arguments."""
    arguments = side.settings.arguments()
    object.__setattr__(side.settings, "arguments", lambda: [*arguments, *more])


async def alone(pair: Pair) -> None:
    """The secondary leaves in order, the primary goes on."""
    await pair.b.plane.idle()
    await pair.a.told(PeerLost)
    await pair.a.plane.alone(generation="alone")


async def together(pair: Pair) -> int:
    """The secondary comes back; what it wrote for that, in bytes."""
    await pair.listen(pair.b)
    before = counted(pair.b, "wchar")
    connected = await pair.connect()
    assert connected.incremental, connected.reason
    await in_mirror(pair.a)
    return counted(pair.b, "wchar") - before


def counted(side: Side, what: str) -> int:
    """A counter of the kernel: bytes that a data plane read or wrote."""
    for line in Path(f"/proc/{side.worker}/io").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1])
    raise AssertionError(what)


async def test_of_a_large_sparse_file_only_the_changed_zones_are_read_and_copied(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    size, places = 20 << 30, [(i * 419_430_400 + 4096 * i) & ~4095 for i in range(51)]

    def before() -> None:
        with open(a.data / "disk", "wb") as file:
            file.truncate(size)
            for place in places:
                file.seek(place)
                file.write(os.urandom(1 << 20))

    def meanwhile() -> None:
        with open(a.data / "disk", "r+b") as file:
            for place in places[:50]:
                file.seek(place)
                file.write(b"changed")

    await in_thread(before)
    await alone(mirrored)
    await in_thread(meanwhile)
    read = counted(a, "rchar")
    written = await together(mirrored)
    assert written < 50 * (128 << 10) + (1 << 20)
    assert counted(a, "rchar") - read < 50 * (3 << 20)
    await a.plane.handover()
    with open(a.data / "disk", "rb") as ours, open(b.data / "disk", "rb") as theirs:
        for place in places:
            assert os.pread(ours.fileno(), 1 << 20, place) == os.pread(theirs.fileno(), 1 << 20, place)
    assert (b.data / "disk").stat().st_blocks <= (a.data / "disk").stat().st_blocks + 1000


@pytest.mark.parametrize("seed", range(4))
async def test_every_way_to_change_bytes_marks_them(fine: Pair, seed: int) -> None:
    chance = random.Random(seed)
    a, b = fine.a, fine.b
    names = [a.data / f"f{i}" for i in range(3)]

    def before() -> None:
        for name in names:
            name.write_bytes(chance.randbytes(6_000_000))
        os.link(names[0], a.data / "other-name")

    def meanwhile() -> None:
        for _ in range(25):
            path = chance.choice([*names, a.data / "other-name"])
            fd = os.open(path, os.O_RDWR)
            at, length = chance.randrange(7_000_000), chance.randrange(1, 300_000)
            match chance.randrange(8):
                case 0 | 1:
                    os.pwrite(fd, chance.randbytes(length), at)
                case 2:
                    os.ftruncate(fd, at)
                case 3:
                    os.ftruncate(fd, chance.randrange(3_000_000))
                    os.ftruncate(fd, 6_000_000)
                case 4:
                    os.copy_file_range(fd, fd, length, 0, 7_000_000 + at)
                case mode:
                    how = {5: PUNCH_KEEP, 6: ZERO, 7: chance.choice((COLLAPSE, INSERT))}[mode]
                    LIBC.fallocate(fd, how, ctypes.c_long(at & ~4095), ctypes.c_long((length & ~4095) or 4096))
            os.close(fd)
        os.rename(names[1], a.data / "renamed")

    await in_thread(before)
    for kill in (False, True):
        await alone(fine)
        await in_thread(meanwhile)
        os.rename(a.data / "renamed", names[1])
        if kill:
            await a.kill()
            await a.restart()
            await a.plane.primary(generation="again")
        await together(fine)
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_of_a_large_file_one_changed_byte_costs_one_zone(fine: Pair) -> None:
    a, b = fine.a, fine.b
    await in_thread(lambda: (a.data / "big").write_bytes(os.urandom(40_000_000)))
    await alone(fine)

    def meanwhile() -> None:
        with open(a.data / "big", "r+b") as file:
            file.seek(20_000_000)
            file.write(b"x")
            file.seek(0, os.SEEK_END)
            file.write(b"at the end")

    await in_thread(meanwhile)
    assert await together(fine) < 4 * 65536
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_moved_folder_keeps_the_marks_of_what_is_below_it(fine: Pair) -> None:
    a, b = fine.a, fine.b

    def before() -> None:
        (a.data / "one" / "two" / "three").mkdir(parents=True)
        (a.data / "one" / "two" / "three" / "file").write_bytes(os.urandom(1_000_000))
        (a.data / "elsewhere").mkdir()

    def meanwhile() -> None:
        with open(a.data / "one" / "two" / "three" / "file", "r+b") as file:
            file.seek(500_000)
            file.write(b"changed before its folder moved")
        os.rename(a.data / "one" / "two", a.data / "elsewhere" / "moved")
        with open(a.data / "elsewhere" / "moved" / "three" / "file", "r+b") as file:
            file.seek(900_000)
            file.write(b"and after")

    await in_thread(before)
    await alone(fine)
    await in_thread(meanwhile)
    await together(fine)
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_resync_of_few_changes_does_not_walk_the_tree(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b

    def before() -> None:
        for folder in range(200):
            (a.data / f"d{folder}").mkdir()
            for i in range(10):
                (a.data / f"d{folder}" / f"f{i}").write_bytes(b"x")

    await in_thread(before)
    await alone(mirrored)
    await in_thread(lambda: (a.data / "d7" / "f3").write_text("changed"))
    await together(mirrored)
    # The folder, once to find the file and once to find nothing more.
    assert (await a.plane.stats())["resync_directories_count"] == 2
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_file_below_a_folder_that_was_made_and_listed_meanwhile_is_found(fine: Pair) -> None:
    a, b = fine.a, fine.b
    await in_thread(lambda: [(a.data / f"f{i}").write_bytes(os.urandom(200_000)) for i in range(30)])
    await alone(fine)

    def meanwhile() -> None:
        for i in range(30):
            with open(a.data / f"f{i}", "r+b") as file:
                file.write(b"changed first")
        (a.data / "new").mkdir()
        for i in range(30):
            os.rename(a.data / f"f{i}", a.data / "new" / f"f{i}")

    await in_thread(meanwhile)
    work = Background(a.data / "new", 7, threads=2)
    try:
        await together(fine)
    finally:
        await in_thread(work.stop)
    await a.plane.handover()
    assert_equal(a.data, b.data)
