"""Both copies are compared on line: nothing equal is called different under any load, and nothing different is missed."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from safekit.replication import DataPlaneError, PeerLost
from safekit.replication.events import CompareEnded
from tests.native.pair import Excluded, Pair, Side, in_mirror, in_thread, opened
from tests.native.trees import assert_equal


class Underneath:
    """The tree of a node below whatever is mounted over it, as a disk that forgets would change it."""

    def __init__(self, side: Side) -> None:
        self._descriptor = os.open(side.data, os.O_PATH)

    @property
    def tree(self) -> Path:
        """A path that leads there."""
        return Path(f"/proc/self/fd/{self._descriptor}")

    def close(self) -> None:
        """Gives the tree back."""
        os.close(self._descriptor)


@pytest.fixture
async def below(tmp_path: Path, binary: Path) -> AsyncIterator[tuple[Pair, Underneath]]:
    """In mirror with some of everything, and a way below the secondary's protection."""
    async with opened(Pair(tmp_path, binary)) as made:
        data = made.a.data
        (data / "d" / "deep").mkdir(parents=True)
        (data / "big").write_bytes(random.Random(1).randbytes(3_500_000))
        for i in range(600):
            (data / "d" / f"f{i}").write_bytes(b"%d" % i * 10)
        with open(data / "sparse", "wb") as file:
            file.seek(20 << 20)
            file.write(b"end")
        os.link(data / "big", data / "d" / "link")
        os.symlink("big", data / "sym")
        os.mkfifo(data / "fifo")
        os.setxattr(data / "d" / "f1", "user.a", b"1")
        os.setxattr(data / "d" / "f1", "user.b", b"2")
        under = Underneath(made.b)
        await made.serve()
        await made.mirror()
        yield made, under
        under.close()


async def compared(side: Side, **arguments: str | int | bool) -> CompareEnded:
    """The result of one comparison."""
    await side.plane._request("verify", {"full-speed": True, **arguments}, 10.0)
    return await side.told(CompareEnded, 60.0)


def listed(result: CompareEnded) -> dict[str, set[str]]:
    """What differs: path -> in what."""
    if not result.list:
        return {}
    lines = [line.split("\t") for line in Path(result.list).read_text().splitlines()]
    return {path: set(what.split(",")) for path, what in lines}


async def test_equal_copies_are_found_equal_from_either_side(below: tuple[Pair, Underneath]) -> None:
    pair, _ = below
    for asked, other in ((pair.a, pair.b), (pair.b, pair.a)):
        result = await compared(asked)
        assert result.equal and not result.failed and not result.list
        assert result.files == 602
        assert result.bytes == 3_500_000 + (20 << 20) + 3 + sum(len(b"%d" % i * 10) for i in range(600))
        assert (await other.told(CompareEnded)).equal


async def test_every_kind_of_difference_is_found_and_named(below: tuple[Pair, Underneath]) -> None:
    pair, under = below
    tree = under.tree

    def damage() -> None:
        with open(tree / "big", "r+b") as file:
            stamp = os.fstat(file.fileno())
            file.seek(2_000_000)
            file.write(b"?")
            file.flush()
            os.utime(file.fileno(), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        with open(tree / "sparse", "r+b") as file:
            file.seek(5 << 20)
            file.write(b"not a hole")
        os.unlink(tree / "d" / "f2")
        (tree / "d" / "extra").write_text("x")
        (tree / "d" / "deep" / "extra too").mkdir()
        os.unlink(tree / "d" / "f3")
        (tree / "d" / "f3").mkdir()
        os.chown(tree / "d" / "f4", 7, 8)
        os.chmod(tree / "d" / "f5", 0o600)
        os.utime(tree / "d" / "f6", ns=(1, 1))
        os.truncate(tree / "d" / "f7", 3)
        os.link(tree / "d" / "f8", tree / "f8 too")
        os.unlink(tree / "sym")
        os.symlink("elsewhere", tree / "sym")
        os.setxattr(tree / "d" / "f1", "user.a", b"9")
        os.chmod(tree / "fifo", 0o600)

    damage()
    result = await compared(pair.a)
    assert not result.equal and not result.failed
    found = listed(result)
    assert "content" in found["/data/big"] and "time" not in found["/data/big"]
    assert "content" in found["/data/sparse"]
    assert found["/data/d/f2"] == {"missing"}
    assert found["/data/d/extra"] == found["/data/d/deep/extra too"] == {"extra"}
    assert found["/data/f8 too"] == {"extra"}
    assert found["/data/d/f3"] == {"kind"}
    assert found["/data/d/f4"] == {"owner"}
    assert found["/data/d/f5"] == {"mode"}
    assert found["/data/d/f6"] == {"time"}
    assert found["/data/d/f7"] >= {"size", "content"}
    assert found["/data/d/f8"] == {"links"}
    assert found["/data/sym"] >= {"target"}
    assert found["/data/d/f1"] == {"attributes"}
    assert found["/data/fifo"] >= {"mode"}
    changed_directories = {"/data", "/data/d", "/data/d/deep"}  # their times
    assert set(found) - changed_directories == {
        *("/data/big", "/data/sparse", "/data/d/f2", "/data/d/extra", "/data/d/deep/extra too", "/data/f8 too"),
        *(f"/data/d/f{i}" for i in (1, 3, 4, 5, 6, 7, 8)),
        *("/data/sym", "/data/fifo"),
    }
    assert result.differing_files == len(found)
    assert (await pair.b.told(CompareEnded)).differing_files == result.differing_files
    assert (await pair.a.plane.status()).peer == "mirror"


async def test_what_was_named_is_copied_by_the_next_resync(below: tuple[Pair, Underneath]) -> None:
    pair, under = below
    tree = under.tree
    with open(tree / "big", "r+b") as file:
        file.write(b"damaged")
    os.unlink(tree / "d" / "f2")
    (tree / "extra").write_text("x")
    os.unlink(tree / "sym")
    os.unlink(tree / "d" / "f3")
    (tree / "d" / "f3").mkdir()
    assert not (await compared(pair.a, repair=True)).equal
    await pair.a.plane.disconnect()
    await pair.a.told(PeerLost)
    await pair.a.plane.alone(generation="3")
    assert (await pair.connect()).incremental
    await in_mirror(pair.a)
    assert (await compared(pair.a)).equal
    await pair.a.plane.handover()
    assert_equal(pair.a.data, pair.b.data)


async def under_load(data: Path, work: Callable[[random.Random, Path], None], during: Callable[[], object]) -> None:
    """Three writers go on until what is to happen meanwhile has happened."""
    stop = threading.Event()

    def writer(seed: int) -> None:
        chance = random.Random(seed)
        folder = data / f"w{seed}"
        folder.mkdir(exist_ok=True)
        while not stop.is_set():
            work(chance, folder)

    tasks = [asyncio.create_task(asyncio.to_thread(writer, seed)) for seed in range(3)]
    try:
        await during()  # type: ignore[misc]
    finally:
        stop.set()
        await asyncio.gather(*tasks)


def churn(chance: random.Random, folder: Path) -> None:
    """One change of any kind."""
    name = folder / f"n{chance.randrange(12)}"
    other = folder / f"n{chance.randrange(12)}"
    try:
        match chance.randrange(9):
            case 0 | 1 | 2:
                with open(name, "r+b" if name.exists() else "wb") as file:
                    file.seek(chance.randrange(3_000_000))
                    file.write(chance.randbytes(chance.randrange(1, 9000)))
            case 3:
                os.unlink(name)
            case 4:
                os.rename(name, other)
            case 5:
                os.link(name, other)
            case 6:
                os.chmod(name, 0o600 + chance.randrange(64))
                os.setxattr(name, "user.k", b"%d" % chance.randrange(9))
            case 7:
                os.truncate(name, chance.randrange(2_000_000))
            case 8:
                (folder / f"d{chance.randrange(3)}").mkdir()
                os.symlink("x", folder / f"d{chance.randrange(3)}" / f"s{chance.randrange(9)}")
    except OSError:
        pass


async def test_nothing_is_called_different_while_everything_changes(below: tuple[Pair, Underneath]) -> None:
    pair, _ = below

    async def compare() -> None:
        for _ in range(4):
            result = await compared(pair.a)
            assert result.equal and not result.failed, listed(result)

    await under_load(pair.a.data, churn, compare)
    await pair.a.plane.handover()
    assert_equal(pair.a.data, pair.b.data)


async def test_what_differs_is_found_while_everything_changes(below: tuple[Pair, Underneath]) -> None:
    pair, under = below
    with open(under.tree / "big", "r+b") as file:
        stamp = os.fstat(file.fileno())
        file.seek(1_500_000)
        file.write(b"?")
        file.flush()
        os.utime(file.fileno(), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (under.tree / "d" / "deep" / "extra").write_text("x")

    async def compare() -> None:
        found = listed(await compared(pair.a))
        assert found == {"/data/big": {"content"}, "/data/d/deep/extra": {"extra"}, "/data/d/deep": {"time"}}

    await under_load(pair.a.data, churn, compare)


async def test_a_comparison_of_metadata_reads_no_content(below: tuple[Pair, Underneath]) -> None:
    pair, under = below
    with open(under.tree / "big", "r+b") as file:
        stamp = os.fstat(file.fileno())
        file.write(b"?")
        file.flush()
        os.utime(file.fileno(), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    result = await compared(pair.a, content="no")
    assert result.equal and result.bytes == 0 and result.files == 602


async def test_a_comparison_can_be_cancelled_and_keeps_to_its_limit(below: tuple[Pair, Underneath]) -> None:
    pair, _ = below
    await pair.a.plane._request("verify", {"limit": 100}, 10.0)
    with pytest.raises(DataPlaneError) as busy:
        await pair.a.plane.compare("verify")
    assert busy.value.code == "busy"
    await asyncio.sleep(1.5)
    values = await pair.a.plane._request("verify-result", {}, 10.0)
    assert values["running"] == "yes" and int(values["bytes"]) < 25_000_000
    await pair.b.plane._request("verify", {"cancel": True}, 10.0)
    assert (await pair.a.told(CompareEnded)).failed == "cancelled"
    assert (await pair.b.told(CompareEnded)).failed == "cancelled"
    assert (await compared(pair.a)).equal


async def test_a_comparison_ends_with_the_mirror(below: tuple[Pair, Underneath]) -> None:
    pair, _ = below
    await pair.a.plane._request("verify", {"limit": 50}, 10.0)
    await pair.b.kill()
    assert (await pair.a.told(CompareEnded)).failed
    with pytest.raises(DataPlaneError) as state:
        await pair.a.plane.compare("verify")
    assert state.value.code == "state"


async def test_what_is_excluded_is_not_compared(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary, excluded=Excluded(paths=(("cache",),), names=((r"\.tmp$",),)))) as pair:
        for side in (pair.a, pair.b):
            (side.data / "cache").mkdir()
            (side.data / "cache" / side.folder.name).write_text("x")
            (side.data / f"{side.folder.name}.tmp").write_text("x")
        (pair.a.data / "seen").write_text("x")
        await pair.serve()
        await pair.mirror()
        await in_thread(lambda: (pair.a.data / "more.tmp").write_text("x"))
        result = await compared(pair.a)
        assert result.equal and result.files == 1, listed(result)


async def test_names_with_odd_bytes_stand_on_one_line(below: tuple[Pair, Underneath]) -> None:
    pair, under = below
    (under.tree / "line\nbreak\\ and\ttab").write_text("x")
    found = listed(await compared(pair.a))
    assert found["/data/line\\012break\\134 and\\011tab"] == {"extra"}


async def counted(side: Side) -> dict[str, str]:
    """The result of one count of what would be copied."""
    await side.plane.compare("diff")
    await side.told(CompareEnded, 60.0)
    return await side.plane._request("diff-result", {}, 10.0)


async def test_what_would_be_copied_is_counted(below: tuple[Pair, Underneath]) -> None:
    pair, _ = below
    data = pair.a.data
    assert (await counted(pair.a))["equal"] == "yes"
    with pytest.raises(DataPlaneError) as role:
        await pair.b.plane.compare("diff")
    assert role.value.code == "role"
    await pair.b.plane.idle()
    await pair.a.told(PeerLost)
    await pair.a.plane.alone(generation="3")
    assert (await counted(pair.a))["differing_files"] == "0"

    def work() -> None:
        with open(data / "big", "r+b") as file:
            file.seek(3_000_000)
            file.write(b"changed")
        (data / "d" / "f1").write_bytes(b"x" * 1000)
        (data / "new").write_bytes(b"y" * 50_000)
        os.chmod(data / "d" / "f2", 0o600)

    await in_thread(work)
    found = await counted(pair.a)
    assert found["full"] == "no" and found["differing_files"] == "4" and int(found["seconds"]) >= 1
    assert 51_000 + 7 <= int(found["differing_bytes"]) <= 51_000 + (1 << 20)
    names = {line.split("\t")[0] for line in Path(found["list"]).read_text().splitlines()}
    assert names - {"/data/big", "/data/d/link"} == {"/data/d/f1", "/data/d/f2", "/data/new"}
    assert len(names) == 4


async def test_everything_would_be_copied_when_no_record_reaches_back(pair: Pair) -> None:
    (pair.a.data / "x").write_bytes(b"x" * 5000)
    await pair.a.plane.primary(generation="1")
    found = await counted(pair.a)
    assert found["full"] == "yes" and found["differing_files"] == "1" and found["differing_bytes"] == "5000"
