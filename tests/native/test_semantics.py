"""A replicated directory behaves like the directory that it was, and the secondary's copy follows each operation."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import random
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.pair import Pair, in_thread
from tests.native.trees import assert_equal

LIBC = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
Case = Callable[[Path, Path], None]
CASES: list[Case] = []


def case(function: Case) -> Case:
    """One statement about the mount (first argument) and the copy of the secondary (second)."""
    CASES.append(function)
    return function


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    if LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(size)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def rename(one: Path, other: Path, flags: int) -> None:
    if LIBC.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def descriptor(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def same(m: Path, b: Path, name: str) -> bool:
    return (m / name).read_bytes() == (b / name).read_bytes()


@case
def shared_mapping_reaches_the_secondary_with_msync(m: Path, b: Path) -> None:
    (m / "map").write_bytes(bytes(65536))
    with open(m / "map", "r+b") as file, mmap.mmap(file.fileno(), 65536) as mapped:
        mapped[5000:5005] = b"hello"
        mapped.flush()
        assert (b / "map").read_bytes()[5000:5005] == b"hello"
        os.pwrite(file.fileno(), b"BBB", 5100)
        mapped[5200:5203] = b"CCC"
        assert os.pread(file.fileno(), 3, 5200) == b"CCC"
        mapped.flush()
    assert same(m, b, "map")


@case
def direct_and_buffered_writes_see_each_other(m: Path, b: Path) -> None:
    page = mmap.mmap(-1, 8192)
    page[:] = b"D" * 8192
    with (
        descriptor(m / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as direct,
        descriptor(m / "direct", os.O_RDWR) as buffered,
    ):
        assert os.pwritev(direct, [page], 4096) == 8192
        assert os.pread(buffered, 8192, 4096) == b"D" * 8192
        os.pwrite(buffered, b"F" * 4096, 4096)
        assert os.preadv(direct, [page], 4096) == 8192
        assert page[:4096] == b"F" * 4096
    assert same(m, b, "direct")


def _append(path: Path, name: int) -> None:
    with descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as fd:
        for i in range(100):
            os.write(fd, b"%d:%05d\n" % (name, i))


@case
def appends_of_several_processes_lose_nothing(m: Path, b: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append, args=(m / "appended", i)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = (m / "appended").read_bytes().splitlines()
    assert len(lines) == len(set(lines)) == 400
    assert same(m, b, "appended")


@case
def truncating_opens_truncate_on_both_sides(m: Path, b: Path) -> None:
    (m / "t").write_text("long content")
    with descriptor(m / "t", os.O_WRONLY | os.O_TRUNC) as fd:
        assert (b / "t").read_bytes() == b""
        os.write(fd, b"short")
        os.ftruncate(fd, 3)
        os.ftruncate(fd, 10)
    assert (b / "t").read_bytes() == b"sho" + bytes(7)


def _elsewhere(work: Callable[[], object]) -> int:
    """What another process gets: 0 or an errno."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _lock_elsewhere(path: Path, take: Callable[[Any, int], None]) -> int:
    def lock() -> None:
        with open(path, "r+") as file:
            take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    return _elsewhere(lock)


@case
def locks_hold_between_processes(m: Path, b: Path) -> None:
    (m / "lock").touch()
    for take in (fcntl.flock, fcntl.lockf):
        with open(m / "lock", "r+") as file:
            take(file, fcntl.LOCK_EX)
            assert _lock_elsewhere(m / "lock", take) in (errno.EAGAIN, errno.EACCES)
        assert _lock_elsewhere(m / "lock", take) == 0


@case
def space_is_allocated_punched_and_zeroed_alike(m: Path, b: Path) -> None:
    with descriptor(m / "space", os.O_RDWR | os.O_CREAT) as fd:
        fallocate(fd, 0, 0, 1 << 20)
        os.pwrite(fd, b"z" * (1 << 20), 0)
        fallocate(fd, KEEP_SIZE, 1 << 20, 1 << 20)
        assert os.fstat(fd).st_size == 1 << 20
        fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 4096, 8192)
        assert os.pread(fd, 8192, 4096) == bytes(8192)
        fallocate(fd, ZERO_RANGE, 65536, 4096)
        assert os.pread(fd, 4096, 65536) == bytes(4096)
    assert same(m, b, "space")


@case
def sparse_files_stay_sparse(m: Path, b: Path) -> None:
    with descriptor(m / "sparse", os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, 64 << 20)
        os.pwrite(fd, b"mid", 32 << 20)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 32 << 20
        assert os.lseek(fd, 32 << 20, os.SEEK_HOLE) < 33 << 20
    assert (b / "sparse").stat().st_size == 64 << 20
    assert (b / "sparse").stat().st_blocks < 100


@case
def extended_attributes_follow(m: Path, b: Path) -> None:
    (m / "x").touch()
    os.setxattr(m / "x", "user.a", b"1" * 1000)
    os.setxattr(m / "x", "user.b", b"2")
    os.removexattr(m / "x", "user.b")
    with pytest.raises(OSError, match="No data"):
        os.getxattr(m / "x", "user.b")
    assert os.listxattr(b / "x") == ["user.a"]
    assert os.getxattr(b / "x", "user.a") == b"1" * 1000


@case
def default_acls_are_inherited_on_both_sides(m: Path, b: Path) -> None:
    # user::rwx, user:65534:rwx, group::r-x, mask::rwx, other::r-x as the kernel keeps it.
    acl = b"\x02\x00\x00\x00" + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, bits, who in (
            (1, 7, 0xFFFFFFFF),
            (2, 7, 65534),
            (4, 5, 0xFFFFFFFF),
            (16, 7, 0xFFFFFFFF),
            (32, 5, 0xFFFFFFFF),
        )
    )
    (m / "acl").mkdir()
    os.setxattr(m / "acl", "system.posix_acl_default", acl)
    (m / "acl" / "f").touch()
    (m / "acl" / "d").mkdir()
    assert os.getxattr(m / "acl" / "d", "system.posix_acl_default") == acl
    assert os.getxattr(b / "acl" / "f", "system.posix_acl_access") == os.getxattr(
        m / "acl" / "f", "system.posix_acl_access"
    )
    assert (b / "acl" / "f").stat().st_mode == (m / "acl" / "f").stat().st_mode


@case
def hard_links_are_one_file_on_both_sides(m: Path, b: Path) -> None:
    (m / "h1").write_text("one")
    os.link(m / "h1", m / "h2")
    with open(m / "h2", "a") as file:
        file.write("two")
    assert (m / "h1").read_text() == "onetwo"
    assert (m / "h1").stat().st_nlink == 2
    assert (b / "h1").stat().st_ino == (b / "h2").stat().st_ino
    os.unlink(m / "h1")
    (m / "h2").write_text("still there")
    assert (b / "h2").read_text() == "still there"


@case
def an_open_file_outlives_its_name(m: Path, b: Path) -> None:
    (m / "old").write_text("old")
    with descriptor(m / "old", os.O_RDWR) as fd:
        (m / "new").write_text("new")
        os.rename(m / "new", m / "old")
        os.pwrite(fd, b"OLD", 0)
        assert os.pread(fd, 3, 0) == b"OLD"
    assert (m / "old").read_text() == (b / "old").read_text() == "new"
    with descriptor(m / "gone", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b"data")
        os.unlink(m / "gone")
        os.pwrite(fd, b"DATA", 0)
        os.fsync(fd)
        os.ftruncate(fd, 2)
        assert os.pread(fd, 4, 0) == b"DA"
        assert os.fstat(fd).st_nlink == 0
    assert not (b / "gone").exists()


@case
def copies_inside_the_kernel_reach_the_secondary(m: Path, b: Path) -> None:
    (m / "source").write_bytes(random.Random(1).randbytes(3_000_000))
    with descriptor(m / "source", os.O_RDONLY) as source, descriptor(m / "copy", os.O_RDWR | os.O_CREAT) as copy:
        done = 0
        while n := os.copy_file_range(source, copy, 3_000_000, done, done):
            done += n
    assert done == 3_000_000
    assert (b / "copy").read_bytes() == (m / "source").read_bytes()
    shutil.copy2(m / "source", m / "copy2")
    assert same(m, b, "copy2")


@case
def renames_exchange_and_refuse_to_replace(m: Path, b: Path) -> None:
    (m / "e1").write_text("1")
    (m / "e2").write_text("2")
    rename(m / "e1", m / "e2", 2)
    assert (b / "e1").read_text() == "2"
    with pytest.raises(FileExistsError):
        rename(m / "e1", m / "e2", 1)
    (m / "from").mkdir()
    (m / "from" / "f").write_text("moved")
    os.rename(m / "from", m / "to")
    (m / "to" / "f").write_text("written after its folder moved")
    assert (b / "to" / "f").read_text() == "written after its folder moved"
    with pytest.raises(OSError) as refused:
        os.rename(m / "to", m / "to" / "inside")
    assert refused.value.errno == errno.EINVAL


@case
def special_files_and_links_follow(m: Path, b: Path) -> None:
    os.mkfifo(m / "fifo", 0o640)
    os.mknod(m / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.symlink("nowhere/at all", m / "link")
    os.chown(m / "link", 12, 34, follow_symlinks=False)
    os.utime(m / "link", ns=(1, 123456789), follow_symlinks=False)
    assert os.readlink(b / "link") == "nowhere/at all"
    assert os.lstat(b / "link").st_uid == 12 and os.lstat(b / "link").st_mtime_ns == 123456789
    assert stat.S_ISFIFO((b / "fifo").stat().st_mode)
    assert (b / "device").stat().st_rdev == os.makedev(1, 3)
    folder = os.open(m, os.O_RDONLY)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(f"/proc/self/fd/{folder}/socket")
            server.listen()
            client.connect(f"/proc/self/fd/{folder}/socket")
    finally:
        os.close(folder)
    assert stat.S_ISSOCK((b / "socket").stat().st_mode)


@case
def a_large_folder_is_listed_whole(m: Path, b: Path) -> None:
    (m / "many").mkdir()
    for i in range(500):
        (m / "many" / f"{i:04}-{'n' * 60}").touch()
    assert len(os.listdir(m / "many")) == len(os.listdir(b / "many")) == 500
    assert sum(entry.stat().st_size for entry in os.scandir(m / "many")) == 0
    shutil.rmtree(m / "many")
    assert not (b / "many").exists()


@case
def times_are_equal_to_the_nanosecond(m: Path, b: Path) -> None:
    (m / "when").write_text("q")
    os.utime(m / "when", ns=(1111111111111111111, 1222222222222222222))
    assert (b / "when").stat().st_mtime_ns == 1222222222222222222
    with open(m / "when", "a") as file:
        file.write("r")
    assert (b / "when").stat().st_mtime_ns == (m / "when").stat().st_mtime_ns


def _as_nobody(work: Callable[[], None]) -> int:
    """Runs in a process of its own as user 65534, group 65534; 0 or an errno."""

    def give_up_and_work() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        work()

    return _elsewhere(give_up_and_work)


@case
def owners_umask_and_permissions_are_those_of_the_caller(m: Path, b: Path) -> None:
    (m / "open").mkdir()
    os.chmod(m / "open", 0o777)
    (m / "secret").write_text("s")
    os.chmod(m / "secret", 0o600)
    folder = os.open(m / "open", os.O_RDONLY)  # nobody may not walk the way to here
    above = os.open(m, os.O_RDONLY)

    def create() -> None:
        os.umask(0o027)
        os.mkdir("d", 0o777, dir_fd=folder)
        os.close(os.open("d/f", os.O_CREAT | os.O_WRONLY, 0o666, dir_fd=folder))

    assert _as_nobody(create) == 0
    assert _as_nobody(lambda: os.close(os.open("secret", os.O_RDONLY, dir_fd=above))) == errno.EACCES
    os.close(folder)
    os.close(above)
    for side in (m, b):
        made = (side / "open" / "d" / "f").stat()
        assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (65534, 65534, 0o640)
        assert (side / "open" / "d").stat().st_mode & 0o7777 == 0o750


@case
def folders_with_the_group_bit_hand_their_group_down(m: Path, b: Path) -> None:
    (m / "group").mkdir()
    os.chown(m / "group", 0, 4321)
    os.chmod(m / "group", 0o2775)
    (m / "group" / "d").mkdir()
    (m / "group" / "f").touch()
    for side in (m, b):
        assert (side / "group" / "f").stat().st_gid == 4321
        assert (side / "group" / "d").stat().st_gid == 4321
        assert (side / "group" / "d").stat().st_mode & stat.S_ISGID


@case
def a_write_by_another_user_takes_set_user_id_away(m: Path, b: Path) -> None:
    for name, change in (("w", lambda fd: os.write(fd, b"y")), ("t", lambda fd: os.ftruncate(fd, 0))):
        path = m / f"suid-{name}"
        path.write_text("x")
        os.chmod(path, 0o6777)
        fd = os.open(path, os.O_WRONLY)
        above = os.open(m, os.O_RDONLY)

        def modify(path: str = path.name, change: Callable[[int], object] = change, above: int = above) -> None:
            change(os.open(path, os.O_WRONLY, dir_fd=above))

        assert _as_nobody(modify) == 0
        os.close(fd)
        os.close(above)
        assert (m / path.name).stat().st_mode & 0o7777 == (b / path.name).stat().st_mode & 0o7777 == 0o777


@case
def errors_are_those_of_the_file_system(m: Path, b: Path) -> None:
    (m / "full").mkdir()
    (m / "full" / "f").touch()
    with pytest.raises(OSError) as refused:
        os.rmdir(m / "full")
    assert refused.value.errno == errno.ENOTEMPTY
    with pytest.raises(FileExistsError):
        (m / "full").mkdir()
    with pytest.raises(FileNotFoundError):
        os.unlink(m / "absent")
    with pytest.raises(OSError) as refused:
        (m / ("n" * 256)).touch()
    assert refused.value.errno == errno.ENAMETOOLONG
    assert os.statvfs(m).f_blocks == os.statvfs(b).f_blocks


@case
def a_repository_lives_here(m: Path, b: Path) -> None:
    script = (
        "git init -q r && cd r && for i in $(seq 30); do echo $i > f$i; done && git add . "
        "&& git -c user.name=a -c user.email=a@b commit -qm x && git gc -q && git fsck && git status --short"
    )
    done = subprocess.run(["sh", "-ec", script], cwd=m, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "", done.stderr


async def test_each_operation_means_what_it_means_and_arrives(mirrored: Pair) -> None:
    failures = []
    for statement in CASES:
        folder = statement.__name__
        await in_thread(lambda folder=folder: (mirrored.a.data / folder).mkdir())  # type: ignore[misc]
        try:
            await in_thread(lambda s=statement, f=folder: s(mirrored.a.data / f, mirrored.b.data / f))  # type: ignore[misc]
        except (AssertionError, OSError, pytest.fail.Exception) as error:
            failures.append(f"{folder}: {type(error).__name__} {error}"[:600])
        assert (await mirrored.a.plane.status()).peer == "mirror", (folder, failures, mirrored.a.events)
    assert failures == []
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)
    assert not [name for name in os.listdir(mirrored.b.data) if name.startswith(".fuse")]
