"""What a node must not do, cannot do, or should know before it hurts."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from safekit.replication import PeerLost, PrimaryLost
from tests.native.pair import Pair, Side, in_mirror, in_thread
from tests.native.trees import assert_equal


def changes(data: Path) -> list[Callable[[], object]]:
    """Every way to change a tree that holds `file` and `folder`."""
    return [
        lambda: (data / "new").write_text("x"),
        lambda: open(data / "file", "r+b"),
        lambda: (data / "made").mkdir(),
        lambda: os.unlink(data / "file"),
        lambda: os.rmdir(data / "folder"),
        lambda: os.rename(data / "file", data / "other"),
        lambda: os.link(data / "file", data / "other"),
        lambda: os.symlink("x", data / "other"),
        lambda: os.chmod(data / "file", 0o600),
        lambda: os.chown(data / "file", 1, 1),
        lambda: os.utime(data / "file"),
        lambda: os.truncate(data / "file", 0),
        lambda: os.setxattr(data / "file", "user.k", b"v"),
        lambda: os.mkfifo(data / "pipe"),
    ]


def assert_protected(data: Path) -> None:
    """Readable, and nobody changes it: we are root here."""
    assert (data / "file").read_text() == "x"
    for change in changes(data):
        with pytest.raises(OSError) as refused:
            change()
        assert refused.value.errno == errno.EROFS


def mounts_over(data: Path) -> int:
    """How many file systems lie over a directory."""
    return Path("/proc/self/mountinfo").read_text().count(f" {data} ")


async def with_content(pair: Pair) -> None:
    """A file and a folder on both nodes."""

    def work() -> None:
        (pair.a.data / "file").write_text("x")
        (pair.a.data / "folder").mkdir()

    await in_thread(work)


async def test_nobody_changes_a_secondary_and_everybody_reads_it(mirrored: Pair) -> None:
    await with_content(mirrored)
    assert_protected(mirrored.b.data)
    await mirrored.b.plane.idle()
    (mirrored.b.data / "own").write_text("an ordinary directory again")
    assert mounts_over(mirrored.b.data) == 0


async def test_the_protection_survives_the_process_and_its_successor_takes_it_over(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await with_content(mirrored)
    await b.kill()
    assert_protected(b.data)
    await b.restart()
    assert_protected(b.data)
    await a.until(lambda status: status.peer == "lost")
    await a.plane.alone(generation="3")
    await mirrored.listen(b)
    assert_protected(b.data)
    assert mounts_over(b.data) == 1
    await mirrored.connect()
    await in_mirror(a)
    await in_thread(lambda: (a.data / "later").write_text("y"))
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_killed_secondary_that_nobody_wants_has_an_ordinary_directory_again(mirrored: Pair) -> None:
    b = mirrored.b
    await with_content(mirrored)
    await b.kill()
    await b.restart()
    await b.plane.idle()
    (b.data / "own").write_text("x")
    assert mounts_over(b.data) == 0


async def test_a_killed_secondary_can_become_the_primary(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await with_content(mirrored)
    await b.kill()
    await a.plane.idle(force=True)
    await b.restart()
    await b.plane.primary(generation="9")
    await in_thread(lambda: (b.data / "file").write_text("served"))
    assert mounts_over(b.data) == 1
    await b.plane.idle()
    assert (b.data / "file").read_text() == "served"
    assert mounts_over(b.data) == 0


async def test_a_full_disk_takes_the_secondary_out_and_says_so(pair: Pair) -> None:
    a, b = pair.a, pair.b
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", b.data], check=True)
    try:
        await a.plane.primary(generation="1")
        await pair.listen(b)
        await pair.mirror()
        written = await in_thread(lambda: (a.data / "large").write_bytes(b"x" * 1_000_000))
        assert written == 1_000_000
        application = in_thread(lambda: (a.data / "larger").write_bytes(b"x" * 8_000_000))
        lost = await _while(application, a)
        assert "No space left" in lost
        assert "No space left" in (await b.told(PrimaryLost)).reason
        assert (a.data / "larger").stat().st_size == 8_000_000
    finally:
        await pair.close()  # with every mount that is left


async def _while(application: Coroutine[object, object, object], side: Side) -> str:
    """Why the peer was lost while an application goes on; the grant lets it go on."""
    task = asyncio.ensure_future(application)
    lost = await side.told(PeerLost)
    await side.plane.alone(generation="2")
    await task
    return lost.reason
