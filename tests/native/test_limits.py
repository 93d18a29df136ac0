"""What a node must not do, cannot do, or should know before it hurts."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from safekit.replication import DataPlaneProcess, PeerLost, PrimaryLost, Warned
from tests.native.pair import Pair, Side, in_mirror, in_thread, opened
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


FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h


async def test_a_secondary_whose_disk_hangs_is_given_up_and_resynchronised_when_it_works_again(
    tmp_path: Path, binary: Path
) -> None:
    slow = ("--resync-timeout", "3", "--resync-bandwidth", "300")  # so it is not over when the disk hangs
    async with opened(Pair(tmp_path, binary)) as pair:
        a, b = pair.a, pair.b
        a.process = DataPlaneProcess(replace(a.settings, options=slow), systemd=False)
        small_disk(b.data, "ext4")
        disk = os.open(b.data, os.O_RDONLY)
        (a.data / "file").write_bytes(os.urandom(12 << 20))
        await pair.serve()
        await pair.connect()
        fcntl.ioctl(disk, FIFREEZE, 0)
        try:
            lost = await a.told(PeerLost)
        finally:
            fcntl.ioctl(disk, FITHAW, 0)
            os.close(disk)
        assert (lost.held, lost.reason) == (False, "the resynchronisation made no progress for 3 s")
        await b.until(lambda status: status.peer == "listening")
        await a.kill()
        a.process = DataPlaneProcess(a.settings, systemd=False)
        await a.restart()
        await a.plane.primary(generation="1")
        await pair.mirror()
        await a.plane.handover()
        assert_equal(a.data, b.data)


# ---- what two nodes tell each other ----


def small_disk(folder: Path, kind: str, *options: str) -> Path:
    """An image with a file system, mounted over a directory until the pair is closed."""
    image = folder.parent / "image"
    with open(image, "wb") as file:
        file.truncate(24 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", *options, image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    return image


async def warnings_of(pair: Pair) -> dict[str, list[str]]:
    """What the primary says when it meets its secondary, by code."""
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    await pair.connect()
    await in_mirror(pair.a)
    said: dict[str, list[str]] = {}
    for event in pair.a.events:
        if isinstance(event, Warned):
            said.setdefault(event.code, []).append(event.message)
    return said


async def test_equal_machines_have_nothing_to_say(pair: Pair) -> None:
    (pair.a.data / "x").write_text("x")
    assert await warnings_of(pair) == {}


async def test_a_disk_that_cannot_hold_the_copy_is_told(pair: Pair) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", pair.b.data], check=True)
    said = await warnings_of(pair)
    assert len(said["peer_space"]) == 1 and "/data" in said["peer_space"][0]


async def test_an_allocation_that_finds_no_room_changes_no_size(pair: Pair) -> None:
    small_disk(pair.a.data, "ext4")
    (pair.a.data / "file").write_bytes(b"x" * 5000)
    await warnings_of(pair)

    def allocate() -> None:
        with (pair.a.data / "file").open("r+b") as file:
            with pytest.raises(OSError) as refused:
                os.posix_fallocate(file.fileno(), 0, 100 << 20)
            assert refused.value.errno == errno.ENOSPC
            assert os.fstat(file.fileno()).st_size == 5000

    await in_thread(allocate)
    await pair.a.plane.idle(force=True)
    for side in (pair.a, pair.b):
        assert (side.data / "file").read_bytes() == b"x" * 5000
    assert (pair.a.data / "file").stat().st_mtime_ns == (pair.b.data / "file").stat().st_mtime_ns


async def test_what_the_other_file_system_lacks_is_told_once(pair: Pair) -> None:
    small_disk(pair.b.data, "ext2", "-I", "128", "-b", "1024")
    said = await warnings_of(pair)
    told = " ".join(said["peer_file_system"])
    assert "8 TiB" in told and "nanoseconds" in told and "extended attributes" not in told
    pair.a.events.clear()
    await pair.a.plane.disconnect()
    await pair.a.told(PeerLost)
    await pair.a.plane.alone(generation="3")
    await pair.connect()
    await in_mirror(pair.a)
    assert not [event for event in pair.a.events if isinstance(event, Warned)]


def other_machine(side: Side, binary: Path, script: str) -> None:
    """Runs a side's process in a mount space of its own, after a script."""
    wrapper = side.folder / "other-machine"
    wrapper.write_text(f'#!/bin/sh\nset -e\n{script}\nexec {binary} "$@"\n')
    wrapper.chmod(0o700)
    launcher = side.folder / "launcher"
    launcher.write_text(f'#!/bin/sh\nexec unshare --mount --propagation private {wrapper} "$@"\n')
    launcher.chmod(0o700)
    side.settings = replace(side.settings, binary=launcher)
    side.process = DataPlaneProcess(side.settings, systemd=False)


async def test_owners_that_mean_somebody_else_there_are_told(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair:
        lines = Path("/etc/passwd").read_text().splitlines()
        users = {line.split(":")[0]: int(line.split(":")[2]) for line in lines}
        (tmp_path / "passwd").write_text(
            "\n".join(
                line.replace(":x:1:", ":x:4711:", 1) if line.startswith("daemon:") else line
                for line in lines
                if not line.startswith("sys:")
            )
        )
        other_machine(pair.b, binary, f"mount --bind {tmp_path}/passwd /etc/passwd")
        (pair.a.data / "deep").mkdir()
        (pair.a.data / "deep" / "file").write_text("x")
        os.chown(pair.a.data / "deep" / "file", users["daemon"], 0)
        (pair.a.data / "other").write_text("x")
        os.chown(pair.a.data / "other", users["sys"], 0)
        await pair.start()
        said = (await warnings_of(pair))["owners"]
        assert sorted(said) == [
            f"user daemon has number {users['daemon']} on this node and number 4711 on the other: "
            "owners are replicated as numbers",
            f"user sys (number {users['sys']}) owns files here and does not exist on the other node",
        ]


async def test_a_clock_that_is_wrong_is_told(tmp_path: Path, binary: Path) -> None:
    source = tmp_path / "clock.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <time.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n"
        "int clock_gettime(clockid_t clock, struct timespec *t) {\n"
        "    int result = (int)syscall(SYS_clock_gettime, clock, t);\n"
        "    if (clock == CLOCK_REALTIME) t->tv_sec -= 5;\n"
        "    return result;\n}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "clock.so", source], check=True)
    async with opened(Pair(tmp_path, binary)) as pair:
        preload = f"export ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 LD_PRELOAD={tmp_path}/clock.so"
        other_machine(pair.b, binary, preload)
        await pair.start()
        said = await warnings_of(pair)
        assert len(said["clock"]) == 1 and "behind" in said["clock"][0]


async def test_a_disk_that_gets_full_is_told_before_it_is(pair: Pair) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "small", pair.b.data], check=True)
    await warnings_of(pair)
    await in_thread(lambda: (pair.a.data / "large").write_bytes(b"x" * 20_300_000))
    told = await pair.b.told(Warned)
    assert told.code == "disk_space" and "stops being the secondary" in told.message
    assert (await pair.a.plane.status()).peer == "mirror"
