"""What an application can ask of a file system: one method per kind of request, the arguments are plain values.

The same request is made of two directories by two `Application`s; `Application.ask` says what came out of it in a form that can be
compared: a value, or the error. Names are bytes below the root of the application, open files have numbers of their own (`slot`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import stat
import struct
from collections.abc import Iterator
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW = -100, 0x100, 0x400
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE = 1, 2, 8, 16, 32, 64
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
F_OFD_GETLK, F_OFD_SETLK = 36, 37
USERS = ((0, 0), (1000, 1000), (1001, 1000))
"""Who makes a request: user and group of the file system."""

_CONTENT = random.Random(7).randbytes(2 << 20)
_ALIGNED = mmap.mmap(-1, 2 << 20)


def content(seed: int, size: int) -> bytes:
    """`size` bytes; zeros for seed 0."""
    return _CONTENT[seed * 4099 : seed * 4099 + size] if seed else bytes(size)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel keeps it, of (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _times(atime: int, mtime: int) -> ctypes.Array[_Timespec]:
    pairs = ((0, t) if t in (UTIME_NOW, UTIME_OMIT) else divmod(t, 10**9) for t in (atime, mtime))
    return (_Timespec * 2)(*(_Timespec(*pair) for pair in pairs))


@contextlib.contextmanager
def _acting(user: int) -> Iterator[None]:
    """This thread makes its requests as another user."""
    if user == 0:
        yield
        return
    uid, gid = USERS[user]
    LIBC.setfsgid(gid)
    LIBC.setfsuid(uid)
    try:
        yield
    finally:
        LIBC.setfsuid(0)
        LIBC.setfsgid(0)


class Application:
    """Requests below the open directory `root`, which it takes over."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.files: dict[int, int] = {}
        self.folders: dict[int, int] = {}

    def ask(self, name: str, user: int = 0, umask: int = 0o022, **arguments: Any) -> tuple[str, object]:
        """One request: ("value", what it gave) or ("error", the name of its errno)."""
        before = os.umask(umask)
        try:
            with _acting(user):
                return "value", getattr(self, name)(**arguments)
        except OSError as error:
            return "error", errno.errorcode.get(error.errno or 0, str(error))
        finally:
            os.umask(before)

    def close_all(self) -> None:
        """Lets every open file go, its mappings written back, and the root."""
        for fd in self.files.values():
            with contextlib.suppress(OSError):
                os.fsync(fd)
            os.close(fd)
        self.files.clear()
        if self.root >= 0:
            os.close(self.root)
        self.root = -1

    def _path(self, name: bytes) -> bytes:
        return b"/proc/self/fd/%d/" % self.root + name

    def _fd(self, slot: int) -> int:
        if slot not in self.files:
            raise OSError(errno.EBADF, "not open")
        return self.files[slot]

    def _keep(self, slot: int, fd: int) -> None:
        if slot in self.files:
            os.close(self.files[slot])
        self.files[slot] = fd

    # ---- open files ----

    def open(self, slot: int, path: bytes, flags: int, mode: int = 0o666) -> None:
        self._keep(slot, os.open(self._path(path), flags | os.O_NONBLOCK | os.O_NOCTTY, mode))

    def open_temporary(self, slot: int, folder: bytes, flags: int, mode: int = 0o666) -> None:
        self._keep(slot, os.open(self._path(folder), os.O_TMPFILE | flags, mode))

    def duplicate(self, slot: int, other: int) -> None:
        self._keep(other, os.dup(self._fd(slot)))

    def close(self, slot: int) -> None:
        os.close(self._fd(slot))
        del self.files[slot]

    def write(self, slot: int, seed: int, size: int) -> int:
        fd = self._fd(slot)
        _ALIGNED[:size] = content(seed, size)
        with memoryview(_ALIGNED)[:size] as view:
            return os.write(fd, view)

    def pwrite(self, slot: int, seed: int, size: int, offset: int) -> int:
        fd = self._fd(slot)
        _ALIGNED[:size] = content(seed, size)
        with memoryview(_ALIGNED)[:size] as view:
            return os.pwritev(fd, [view], offset)

    def pwrite_synced(self, slot: int, seed: int, size: int, offset: int) -> int:
        return os.pwritev(self._fd(slot), [content(seed, size)], offset, os.RWF_DSYNC)

    def read(self, slot: int, size: int) -> bytes:
        fd = self._fd(slot)
        with memoryview(_ALIGNED)[:size] as view:
            return bytes(view[: os.readv(fd, [view])])

    def pread(self, slot: int, size: int, offset: int) -> bytes:
        fd = self._fd(slot)
        with memoryview(_ALIGNED)[:size] as view:
            return bytes(view[: os.preadv(fd, [view], offset)])

    def seek(self, slot: int, offset: int, whence: int) -> int:
        fd = self._fd(slot)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return -1  # positions in a directory are the file system's own business
        return os.lseek(fd, offset, whence)

    def store(self, slot: int, seed: int, size: int, offset: int, sync: bool) -> int:
        """Through a shared mapping of the whole file; without `sync` it is left to whoever needs it next."""
        fd = self._fd(slot)
        length = os.fstat(fd).st_size
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not 0 < length <= 8 << 20:
            return -1
        offset %= length
        size = min(size, length - offset)
        with mmap.mmap(fd, length) as mapped:
            mapped[offset : offset + size] = content(seed, size)
            if sync:
                mapped.flush()
        return size

    def copy_range(self, slot: int, source: int, source_offset: int, size: int, offset: int) -> int:
        """The whole range, however many calls it takes."""
        done = 0
        while n := os.copy_file_range(
            self._fd(source), self._fd(slot), size - done, source_offset + done, offset + done
        ):
            done += n
        return done

    def allocate(self, slot: int, mode: int, offset: int, size: int) -> int:
        return _checked(LIBC.fallocate(self._fd(slot), mode, ctypes.c_long(offset), ctypes.c_long(size)))

    def truncate_open(self, slot: int, size: int) -> None:
        os.ftruncate(self._fd(slot), size)

    def sync(self, slot: int, data_only: bool) -> None:
        (os.fdatasync if data_only else os.fsync)(self._fd(slot))

    def name_open(self, slot: int, path: bytes) -> None:
        """Gives an open file (O_TMPFILE) a name."""
        os.link(f"/proc/self/fd/{self._fd(slot)}", self._path(path), follow_symlinks=True)

    def stat_open(self, slot: int) -> object:
        return _seen(os.fstat(self._fd(slot)))

    def chmod_open(self, slot: int, mode: int) -> None:
        os.fchmod(self._fd(slot), mode)

    def chown_open(self, slot: int, uid: int, gid: int) -> None:
        os.fchown(self._fd(slot), uid, gid)

    def set_times_open(self, slot: int, atime: int, mtime: int) -> int:
        return _checked(LIBC.futimens(self._fd(slot), _times(atime, mtime)))

    def set_xattr_open(self, slot: int, key: bytes, value: bytes, flags: int) -> None:
        os.setxattr(self._fd(slot), key, value, flags)

    def lock_file(self, slot: int, kind: int) -> None:
        fcntl.flock(self._fd(slot), kind | fcntl.LOCK_NB)

    def lock_range(self, slot: int, kind: int, offset: int, size: int) -> None:
        """A lock of the open file, so that two slots of one process are in each other's way."""
        fcntl.fcntl(self._fd(slot), F_OFD_SETLK, struct.pack("hhqqi4x", kind, 0, offset, size, 0))

    def who_locks(self, slot: int, kind: int, offset: int, size: int) -> object:
        asked = struct.pack("hhqqi4x", kind, 0, offset, size, 0)
        return struct.unpack("hhqqi4x", fcntl.fcntl(self._fd(slot), F_OFD_GETLK, asked))[:4]

    # ---- names ----

    def write_file(self, path: bytes, flags: int, mode: int, seed: int, size: int) -> int:
        fd = os.open(self._path(path), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | flags, mode)
        try:
            return os.write(fd, content(seed, size))
        finally:
            os.close(fd)

    def read_file(self, path: bytes) -> bytes:
        fd = os.open(self._path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            return os.read(fd, 1 << 20)
        finally:
            os.close(fd)

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._path(path), size)

    def make_folder(self, path: bytes, mode: int) -> None:
        os.mkdir(self._path(path), mode)

    def remove_folder(self, path: bytes) -> None:
        os.rmdir(self._path(path))

    def make_special(self, path: bytes, mode: int, device: int) -> None:
        os.mknod(self._path(path), mode, device)

    def make_symlink(self, path: bytes, text: bytes) -> None:
        os.symlink(text, self._path(path))

    def read_symlink(self, path: bytes) -> bytes:
        return os.readlink(self._path(path))

    def link(self, path: bytes, new: bytes, follow: bool) -> None:
        os.link(self._path(path), self._path(new), follow_symlinks=follow)

    def unlink(self, path: bytes) -> None:
        os.unlink(self._path(path))

    def rename(self, path: bytes, new: bytes, flags: int) -> int:
        return _checked(LIBC.renameat2(AT_FDCWD, self._path(path), AT_FDCWD, self._path(new), flags))

    def list_folder(self, path: bytes) -> object:
        fd = os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                return sorted((os.fsencode(e.name), e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries)
        finally:
            os.close(fd)

    def sync_folder(self, path: bytes) -> None:
        fd = os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def stat(self, path: bytes, follow: bool) -> object:
        return _seen(os.stat(self._path(path), follow_symlinks=follow))

    def access(self, path: bytes, mode: int) -> bool:
        return os.access(self._path(path), mode, effective_ids=True)

    # ---- attributes ----

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._path(path), mode)

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        os.chown(self._path(path), uid, gid, follow_symlinks=follow)

    def set_times(self, path: bytes, atime: int, mtime: int, follow: bool) -> int:
        flags = 0 if follow else AT_SYMLINK_NOFOLLOW
        return _checked(LIBC.utimensat(AT_FDCWD, self._path(path), _times(atime, mtime), flags))

    def set_xattr(self, path: bytes, key: bytes, value: bytes, flags: int, follow: bool) -> None:
        os.setxattr(self._path(path), key, value, flags, follow_symlinks=follow)

    def get_xattr(self, path: bytes, key: bytes, follow: bool) -> bytes:
        return os.getxattr(self._path(path), key, follow_symlinks=follow)

    def list_xattr(self, path: bytes, follow: bool) -> object:
        return sorted(os.listxattr(self._path(path), follow_symlinks=follow))

    def remove_xattr(self, path: bytes, key: bytes, follow: bool) -> None:
        os.removexattr(self._path(path), key, follow_symlinks=follow)


def _seen(st: os.stat_result) -> object:
    """What two directories must agree on: not the times, not the numbers of inodes, not how large a directory is."""
    folder = stat.S_ISDIR(st.st_mode)
    return oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_rdev, None if folder else st.st_size
