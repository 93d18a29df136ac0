"""What POSIX and Linux promise of a file system, asked of a mirror: files without a name, names of any byte, huge holes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import random
import resource
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.native.pair import Pair, in_thread
from tests.native.trees import assert_equal

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
STATX_BTIME = 0x800
Case = Callable[[Path, Path], None]
CASES: list[Case] = []


def case(function: Case) -> Case:
    """One statement about the mount (first argument) and the copy of the secondary (second)."""
    CASES.append(function)
    return function


@contextlib.contextmanager
def descriptor(path: Path | bytes, flags: int, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def failing(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def give_name(fd: int, path: Path) -> None:
    failing(LIBC.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW))


def renamed(one: Path, other: Path, flags: int) -> None:
    failing(LIBC.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), flags))


def fallocated(fd: int, mode: int, offset: int, size: int) -> None:
    failing(LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(size)))


@case
def a_file_without_a_name_gets_one_with_all_that_it_holds(m: Path, b: Path) -> None:
    content = random.Random(1).randbytes(2_500_000)
    with descriptor(m, os.O_TMPFILE | os.O_RDWR, 0o640) as fd:
        os.pwrite(fd, content, 10_000_000)
        os.ftruncate(fd, 30_000_000)
        os.setxattr(f"/proc/self/fd/{fd}", "user.origin", b"nowhere")
        os.fchown(fd, 12, 34)
        os.utime(fd, ns=(1, 1_234_567_890_123_456_789))
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(m) == os.listdir(b) == []
        give_name(fd, m / "named")
        assert os.fstat(fd).st_nlink == 1
        os.pwrite(fd, b"after", 5)
        give_name(fd, m / "again")
    assert os.listdir(m) and (m / "named").stat().st_ino == (m / "again").stat().st_ino
    assert (b / "named").read_bytes()[10_000_000 : 10_000_000 + len(content)] == content
    assert (b / "named").read_bytes()[5:10] == b"after"
    assert (b / "named").stat().st_blocks < 10_000
    assert os.getxattr(b / "again", "user.origin") == b"nowhere"
    assert (b / "again").stat().st_uid == 12 and (b / "again").stat().st_mode & 0o7777 == 0o640


@case
def a_file_without_a_name_may_be_refused_one_and_is_forgotten(m: Path, b: Path) -> None:
    with descriptor(m, os.O_TMPFILE | os.O_RDWR | os.O_EXCL) as fd:
        os.write(fd, b"never seen")
        os.fsync(fd)
        with pytest.raises(FileNotFoundError):
            give_name(fd, m / "refused")
    with descriptor(m, os.O_TMPFILE | os.O_WRONLY) as fd:
        (m / "taken").touch()
        with pytest.raises(FileExistsError):
            give_name(fd, m / "taken")
    assert os.listdir(m) == os.listdir(b) == ["taken"]


@case
def renames_do_what_their_flags_say(m: Path, b: Path) -> None:
    noreplace, exchange, whiteout = 1, 2, 4
    (m / "file").write_text("file")
    (m / "folder" / "below").mkdir(parents=True)
    renamed(m / "file", m / "folder", exchange)
    assert (b / "folder").read_text() == "file" and (b / "file" / "below").is_dir()
    (m / "file" / "below" / "f").write_text("known by its new way")
    assert (b / "file" / "below" / "f").read_text() == "known by its new way"
    with pytest.raises(FileExistsError):
        renamed(m / "file", m / "folder", noreplace)
    with pytest.raises(OSError) as refused:
        renamed(m / "folder", m / "other", whiteout)
    assert refused.value.errno == errno.EINVAL
    os.rename(m / "file" / "below", m / "below")
    (m / "target").mkdir()
    os.rename(m / "below", m / "target")
    assert (b / "target" / "f").exists()
    with pytest.raises(OSError) as refused:
        os.rename(m / "file", m / "target" / "f")
    assert refused.value.errno == errno.ENOTDIR


@case
def one_copy_inside_the_kernel_takes_the_whole_size(m: Path, b: Path) -> None:
    (m / "source").write_bytes(random.Random(2).randbytes(5_000_001))
    with descriptor(m / "source", os.O_RDONLY) as source, descriptor(m / "copy", os.O_RDWR | os.O_CREAT) as copy:
        assert os.copy_file_range(source, copy, 5_000_001, 0, 0) == 5_000_001
        assert os.copy_file_range(source, copy, 10, 5_000_001, 0) == 0
        assert os.copy_file_range(copy, copy, 1000, 0, 6_000_000) == 1000
    assert (m / "copy").read_bytes() == (b / "copy").read_bytes()
    assert (m / "copy").stat().st_size == 6_001_000


@case
def space_is_kept_zeroed_and_punched_as_below(m: Path, b: Path) -> None:
    keep, punch, collapse, zero, insert = 1, 2, 8, 16, 32
    with descriptor(m / "space", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b"s" * 100_000)
        fallocated(fd, zero | keep, 90_000, 50_000)
        assert os.fstat(fd).st_size == 100_000
        fallocated(fd, zero, 90_000, 50_000)
        assert os.fstat(fd).st_size == 140_000
        fallocated(fd, punch | keep, 4096, 8192)
        for mode in (collapse, insert):
            with pytest.raises(OSError) as refused:
                fallocated(fd, mode, 0, 4096)
            assert refused.value.errno == errno.EOPNOTSUPP
        with pytest.raises(OSError) as refused:
            fallocated(fd, 0, -1, 10)
        assert refused.value.errno == errno.EINVAL
        assert os.pread(fd, 8192, 4096) == bytes(8192)
    assert (m / "space").read_bytes() == (b / "space").read_bytes()


@case
def a_sparse_file_may_be_larger_than_four_terabytes(m: Path, b: Path) -> None:
    size = 5 << 40
    with descriptor(m / "huge", os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, size)
        os.pwrite(fd, b"far", size - 3)
        os.pwrite(fd, b"middle", 4 << 40)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 4 << 40
        with pytest.raises(OSError) as refused:
            os.pwrite(fd, b"x", 1 << 62)
        assert refused.value.errno == errno.EFBIG
    with open(b / "huge", "rb") as copy:
        assert os.pread(copy.fileno(), 6, 4 << 40) == b"middle"
        assert os.pread(copy.fileno(), 10, size - 3) == b"far"
    assert (b / "huge").stat().st_size == size and (b / "huge").stat().st_blocks < 100
    os.unlink(m / "huge")


@case
def a_name_is_any_255_bytes(m: Path, b: Path) -> None:
    every = bytes(i for i in range(1, 256) if i != ord("/"))
    names = [every, b"n" * 255, "ü".encode() * 127, b" ", b"\n", b"\xff\xfe", b"...", b"-rf", b"\"\\'"]
    for name in names:
        with descriptor(os.fsencode(m) + b"/" + name, os.O_WRONLY | os.O_CREAT) as fd:
            os.write(fd, name)
    assert sorted(os.listdir(os.fsencode(m))) == sorted(os.listdir(os.fsencode(b))) == sorted(names)
    for name in names:
        with open(os.fsencode(b) + b"/" + name, "rb") as copy:
            assert copy.read() == name
    os.rename(os.fsencode(m) + b"/" + every, os.fsencode(m) + b"/" + every[::-1])
    assert os.path.exists(os.fsencode(b) + b"/" + every[::-1])
    with pytest.raises(OSError) as refused:
        os.mkdir(os.fsencode(m) + b"/" + b"n" * 256)
    assert refused.value.errno == errno.ENAMETOOLONG


@case
def a_tree_is_as_deep_as_a_path_is_long_and_refuses_to_be_deeper(m: Path, b: Path) -> None:
    folder = os.open(m, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as refused:
            for _ in range(200):
                os.mkdir("d" * 40, dir_fd=folder)
                below = os.open("d" * 40, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
                os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
        assert refused.value.errno == errno.ENAMETOOLONG
    finally:
        os.close(folder)
    depth = [sum(1 for _ in os.walk(side)) for side in (m, b)]
    assert depth[0] == depth[1] > 80
    shutil.rmtree(m)
    m.mkdir()


@case
def the_time_of_birth_is_that_of_the_file_below(m: Path, b: Path) -> None:
    (m / "born").touch()
    first = birth_of(m / "born")
    assert first > 1_700_000_000
    os.utime(m / "born", (1, 1))
    assert birth_of(m / "born") == first


def birth_of(path: Path) -> int:
    buffer = ctypes.create_string_buffer(256)
    failing(LIBC.statx(AT_FDCWD, os.fsencode(path), 0, STATX_BTIME, buffer))
    assert int.from_bytes(buffer.raw[0:4], platform_order()) & STATX_BTIME
    return int.from_bytes(buffer.raw[80:88], platform_order(), signed=True)


def platform_order() -> str:
    return "little" if platform.machine() in ("x86_64", "aarch64") else "big"


@case
def direct_and_synchronous_writes_are_whole(m: Path, b: Path) -> None:
    page = mmap.mmap(-1, 1 << 20)
    page[:] = b"P" * (1 << 20)
    for name, flags in (
        ("direct", os.O_DIRECT),
        ("sync", os.O_SYNC),
        ("dsync", os.O_DSYNC),
        ("both", os.O_DIRECT | os.O_SYNC),
        ("append", os.O_APPEND | os.O_DIRECT),
    ):
        with descriptor(m / name, os.O_WRONLY | os.O_CREAT | flags) as fd:
            assert os.write(fd, page) == os.write(fd, page) == 1 << 20
        assert (b / name).read_bytes() == b"P" * (2 << 20)
    with descriptor(m / "flags", os.O_RDWR | os.O_CREAT) as fd:
        assert os.pwritev(fd, [b"one", b"two"], 7, os.RWF_DSYNC) == 6
    assert (b / "flags").read_bytes() == bytes(7) + b"onetwo"


@case
def mappings_private_and_shared_keep_their_promise(m: Path, b: Path) -> None:
    (m / "map").write_bytes(b"a" * 300_000)
    with descriptor(m / "map", os.O_RDWR) as fd:
        with mmap.mmap(fd, 300_000, mmap.MAP_PRIVATE) as private:
            private[0:3] = b"zzz"
        shared = mmap.mmap(fd, 300_000)
        for offset in range(0, 300_000, 5000):
            shared[offset] = 66
        os.close(os.dup(fd))
        shared.flush()
        shared.close()
        os.fsync(fd)
    expected = bytearray(b"a" * 300_000)
    expected[::5000] = b"B" * 60
    assert (m / "map").read_bytes() == (b / "map").read_bytes() == expected


@case
def locks_are_kept_between_processes_of_this_node(m: Path, b: Path) -> None:
    (m / "l").write_bytes(bytes(100))
    with open(m / "l", "r+b") as one:
        fcntl.lockf(one, fcntl.LOCK_EX, 10, 0)
        child = os.fork()
        if not child:
            code = 9
            try:
                with open(m / "l", "r+b") as other:
                    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
                    try:
                        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
                    except OSError as error:
                        code = 0 if error.errno in (errno.EAGAIN, errno.EACCES) else 8
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@case
def extended_attributes_keep_every_byte_and_their_errors(m: Path, b: Path) -> None:
    (m / "x").touch()
    os.setxattr(m / "x", "user." + "n" * 250, bytes(range(256)), os.XATTR_CREATE)
    with pytest.raises(FileExistsError):
        os.setxattr(m / "x", "user." + "n" * 250, b"", os.XATTR_CREATE)
    with pytest.raises(OSError) as refused:
        os.setxattr(m / "x", "user.absent", b"", os.XATTR_REPLACE)
    assert refused.value.errno == errno.ENODATA
    os.setxattr(m / "x", "user.empty", b"")
    os.setxattr(m / "x", "trusted.t", b"for root")
    os.setxattr(m, "user.folder", b"f")
    for name in os.listxattr(m / "x"):
        assert os.getxattr(m / "x", name) == os.getxattr(b / "x", name)
    assert sorted(os.listxattr(m / "x")) == sorted(os.listxattr(b / "x"))
    assert os.getxattr(b, "user.folder") == b"f"


@case
def access_lists_change_the_mode_and_decide(m: Path, b: Path) -> None:
    def access_list(mask: int) -> bytes:
        entries = (
            (1, 6, -1),
            (2, 6, 65534),
            (4, 0, -1),
            (16, mask, -1),
            (32, 0, -1),
        )  # owner, user 65534, group, mask, others
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)

    name = "system.posix_acl_access"
    (m / "f").write_text("s")
    os.chmod(m / "f", 0o600)
    os.setxattr(m / "f", name, access_list(6))
    assert os.getxattr(m / "f", name) == os.getxattr(b / "f", name) == access_list(6)
    assert (m / "f").stat().st_mode & 0o7777 == (b / "f").stat().st_mode & 0o7777 == 0o660
    os.chmod(m / "f", 0o640)
    assert os.getxattr(m / "f", name) == os.getxattr(b / "f", name) == access_list(4)
    os.removexattr(m / "f", name)
    assert os.listxattr(b / "f") == []


@case
def every_kind_of_file_keeps_its_kind(m: Path, b: Path) -> None:
    for name, kind, device in (
        ("block", stat.S_IFBLK, os.makedev(7, 300)),
        ("character", stat.S_IFCHR, os.makedev(1, 3)),
        ("fifo", stat.S_IFIFO, 0),
        ("socket", stat.S_IFSOCK, 0),
        ("regular", stat.S_IFREG, 0),
    ):
        os.mknod(m / name, kind | 0o644, device)
        one, other = os.lstat(m / name), os.lstat(b / name)
        assert (one.st_mode, one.st_rdev) == (other.st_mode, other.st_rdev)
        assert stat.S_IFMT(other.st_mode) == kind
    with descriptor(m / "character", os.O_WRONLY) as fd:
        assert os.write(fd, b"goes to /dev/null") == 17
    os.symlink(b"t" * 4095, os.fsencode(m / "long"))
    assert os.readlink(b / "long") == "t" * 4095
    os.link(m / "fifo", m / "second", follow_symlinks=False)
    assert os.lstat(b / "second").st_nlink == 2


@case
def sticky_folders_and_set_id_bits_mean_what_they_mean(m: Path, b: Path) -> None:
    (m / "sticky").mkdir()
    os.chmod(m / "sticky", 0o1777)
    (m / "sticky" / "of-root").touch()
    folder = os.open(m / "sticky", os.O_RDONLY)
    child = os.fork()
    if not child:
        code = 9
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.close(os.open("mine", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
            os.unlink("mine", dir_fd=folder)
            os.unlink("of-root", dir_fd=folder)
        except PermissionError:
            code = 0
        finally:
            os._exit(code)
    os.close(folder)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (m / "set").touch()
    os.chmod(m / "set", 0o6755)
    os.chown(m / "set", 5, 5)
    assert (m / "set").stat().st_mode == (b / "set").stat().st_mode
    assert not (b / "set").stat().st_mode & stat.S_ISUID


@case
def a_folder_of_many_names_is_read_in_parts_and_emptied_while_read(m: Path, b: Path) -> None:
    wanted = {f"{i:05}{'x' * (i % 200)}" for i in range(3000)}
    for name in wanted:
        os.close(os.open(m / name, os.O_CREAT | os.O_WRONLY))
    seen = set()
    with os.scandir(m) as entries:
        for entry in entries:
            seen.add(entry.name)
            os.unlink(entry.path)
    assert seen == wanted
    assert os.listdir(m) == os.listdir(b) == []


async def test_each_promise_is_kept_and_replicated(mirrored: Pair) -> None:
    failures = []
    for statement in CASES:
        folder = statement.__name__
        await in_thread(lambda folder=folder: (mirrored.a.data / folder).mkdir())  # type: ignore[misc]
        try:
            await in_thread(lambda s=statement, f=folder: s(mirrored.a.data / f, mirrored.b.data / f))  # type: ignore[misc]
        except Exception as error:
            failures.append(f"{folder}: {error!r}")
    assert not failures, "\n".join(failures)
    status = await mirrored.a.plane.status()
    assert status.peer == "mirror", mirrored.a.events
    await mirrored.a.plane.handover()
    await in_thread(lambda: assert_equal(mirrored.a.data, mirrored.b.data))


async def test_more_files_than_descriptors_are_named_one_after_the_other(pair: Pair) -> None:
    await pair.a.plane.primary(generation="1")
    limit, files = 400, 600
    resource.prlimit(pair.a.worker, resource.RLIMIT_NOFILE, (limit, limit))

    def name_all() -> None:
        for i in range(files):
            (pair.a.data / f"{i}").touch()
        assert sum(os.stat(pair.a.data / f"{i}").st_size for i in range(files)) == 0
        assert (
            len(os.listdir(pair.a.data))
            == sum(1 for entry in os.scandir(pair.a.data) if entry.stat().st_nlink == 1)
            == files
        )

    await in_thread(name_all)


async def test_a_mount_reads_ahead_as_far_as_the_disk_below(pair: Pair) -> None:
    await pair.a.plane.primary(generation="1")

    def read_ahead(directory: Path) -> int:
        device = os.stat(directory).st_dev
        path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        if not os.access(path, os.W_OK):
            pytest.skip("/sys is read-only here: nobody may say how far is read ahead")
        return int(path.read_text())

    below = await in_thread(lambda: read_ahead(pair.a.folder))
    assert await in_thread(lambda: read_ahead(pair.a.data)) >= max(below, 1024)
