"""Listings say of a file all that makes it equal; what differs in anything of it is compared, and the rest is not touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.native.chaos import Background
from tests.native.pair import Pair, in_mirror, in_thread
from tests.native.trees import assert_equal

_WHEN = (1_700_000_000_000_000_000, 1_700_000_000_123_456_789)


def _fill(root: Path, folders: range, files: int) -> None:
    for folder in folders:
        (root / f"d{folder}").mkdir()
        for number in range(files):
            path = root / f"d{folder}" / f"f{number}"
            path.touch()
            os.utime(path, ns=_WHEN)


def _changed(path: Path) -> int:
    return path.stat().st_ctime_ns


async def test_every_kind_of_difference_of_an_empty_file_is_found_and_nothing_else_is_written(pair: Pair) -> None:
    ours, theirs = pair.a.data, pair.b.data
    for root in (ours, theirs):
        _fill(root, range(2), 1500)
        _fill(root, range(2, 3), 100)
    there = theirs / "d1"
    os.chmod(there / "f1", 0o4755)
    os.chown(there / "f2", 5, 0)
    os.chown(there / "f3", 0, 5)
    os.utime(there / "f4", ns=(_WHEN[0], _WHEN[1] + 1))
    os.setxattr(there / "f5", "user.more", b"x")
    os.setxattr(ours / "d1" / "f6", "user.less", b"x")
    for name, value in (("user.a", b"1"), ("user.b", b"2")):
        os.setxattr(ours / "d1" / "f7", name, value)
    for name, value in (("user.b", b"2"), ("user.a", b"1")):
        os.setxattr(there / "f7", name, value)
    os.setxattr(ours / "d1" / "f8", "user.other", b"x" * 3000)
    os.setxattr(there / "f8", "user.other", b"y" * 3000)
    (there / "f9").write_bytes(b"has bytes")
    os.utime(there / "f9", ns=_WHEN)
    (there / "f10").unlink()
    (there / "f11").unlink()
    (there / "f11").mkdir()
    (there / "f11" / "below").touch()
    (there / "f12").unlink()
    os.link(there / "f13", there / "f12")
    os.link(there / "f14", theirs / "another name of it")
    (there / "f15").unlink()
    os.symlink("f16", there / "f15")
    (there / "only there").touch()
    os.truncate(there / "f17", 5000)
    os.utime(there / "f17", ns=_WHEN)
    untouched = {path: _changed(path) for path in theirs.glob("d[02]/*")}

    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    await pair.mirror()
    assert_equal(ours, theirs)
    assert {path: _changed(path) for path in untouched} == untouched
    assert (await pair.a.plane.status()).files_done >= 3100


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_tree_that_changes_while_it_is_listed_is_equal_afterwards(pair: Pair, seed: int) -> None:
    ours, theirs = pair.a.data, pair.b.data
    for root in (ours, theirs):
        _fill(root, range(20), 120)
    for number in range(0, 120, 3):
        os.chmod(theirs / "d7" / f"f{number}", 0o600)
        (theirs / "d8" / f"f{number}").unlink()
        (theirs / "d9" / f"f{number}").write_bytes(b"more")

    def change() -> None:
        """What is compared gets other names, other attributes and bytes meanwhile."""
        for number in range(120):
            source, other = ours / f"d{7 + number % 3}" / f"f{number}", ours / f"d{4 + number % 3}"
            match number % 6:
                case 0:
                    os.rename(source, ours / f"d{19 - number % 7}" / f"renamed {number}")
                case 1:
                    os.chmod(source, 0o640)
                case 2:
                    source.write_bytes(b"x" * number)
                case 3:
                    os.link(source, other / f"linked {number}")
                    source.unlink()
                case 4:
                    os.setxattr(source, "user.new", b"1")
                case _:
                    source.unlink()
        os.rename(ours / "d8", ours / "d5" / "moved")
        os.rename(ours / "d9", ours / "moved too")

    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    work = Background(ours, seed, threads=2)
    await pair.connect()
    await in_thread(change)
    await in_mirror(pair.a)
    await in_thread(work.stop)
    assert (await pair.a.plane.status()).peer == "mirror", pair.a.events
    await pair.a.plane.handover()
    assert_equal(ours, theirs)
