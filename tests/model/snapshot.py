"""A tree bit for bit: content, holes, size, mode, owner, times, links, extended attributes and ACLs, by name in bytes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct
import time
from dataclasses import dataclass, fields, replace

BLOCK = 4096
_ZEROS = bytes(1 << 20)
_FS_IOC_FIEMAP, _FIEMAP_SYNC, _EXTENTS = 0xC020660B, 1, 32
_FIEMAP = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_YEAR_NS = 365 * 86400 * 10**9


@dataclass(frozen=True)
class Entry:
    """One name. `same_as`: the first name, in order, of the same inode. `blocks`: the ranges that are no holes."""

    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    links: int
    same_as: bytes
    rdev: int
    target: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    content: str
    blocks: tuple[tuple[int, int], ...]


Snapshot = dict[bytes, Entry]


def snapshot(root: os.PathLike[str] | str | bytes) -> Snapshot:
    """Every name below `root`, and the root itself as `.`."""
    tree: Snapshot = {}
    first: dict[tuple[int, int], bytes] = {}
    top = os.fsencode(root)
    names = [b"."]
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(top, folder)) as entries:
            for entry in entries:
                name = os.path.join(folder, entry.name)
                names.append(name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
    for name in sorted(names):
        path = os.path.join(top, name)
        st = os.lstat(path)
        keys = sorted(os.listxattr(path, follow_symlinks=False))
        content, blocks = _content(path, st.st_size) if stat.S_ISREG(st.st_mode) else ("", ())
        tree[name] = Entry(
            mode=st.st_mode,
            owner=(st.st_uid, st.st_gid),
            size=0 if stat.S_ISDIR(st.st_mode) else st.st_size,
            mtime_ns=st.st_mtime_ns,
            links=st.st_nlink,
            same_as=first.setdefault((st.st_dev, st.st_ino), name),
            rdev=st.st_rdev,
            target=os.readlink(path) if stat.S_ISLNK(st.st_mode) else b"",
            xattrs=tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in keys),
            content=content,
            blocks=blocks,
        )
    return tree


def _content(path: bytes, size: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A digest of every block that is not zeros, with its place, and the ranges that have blocks on the disk."""
    digest = hashlib.blake2b(digest_size=16)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        at = 0
        while at < size:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            for offset in range(begin, at, 1 << 20):
                piece = os.pread(fd, min(1 << 20, at - offset), offset)
                if piece == _ZEROS[: len(piece)]:
                    continue
                for block in range(0, len(piece), BLOCK):
                    part = piece[block : block + BLOCK]
                    if part.count(0) != len(part):
                        digest.update(b"%d:" % (offset + block) + part)
        return digest.hexdigest(), _allocated(fd)
    finally:
        os.close(fd)


def _allocated(fd: int) -> tuple[tuple[int, int], ...]:
    """Where a file is no hole. SEEK_DATA would not do: for it what was allocated and then read is data as long as it is cached."""
    ranges: list[tuple[int, int]] = []
    at = 0
    while True:
        asked = bytearray(
            _FIEMAP.pack(at, (1 << 64) - 1 - at, _FIEMAP_SYNC, 0, _EXTENTS, 0) + bytes(_EXTENTS * _EXTENT.size)
        )
        try:
            fcntl.ioctl(fd, _FS_IOC_FIEMAP, asked)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):  # a mount of ours
                return ()
            raise
        count = _FIEMAP.unpack_from(asked)[3]
        for index in range(count):
            begin, _, length, *_ = _EXTENT.unpack_from(asked, _FIEMAP.size + index * _EXTENT.size)
            at = begin + length
            if ranges and ranges[-1][1] == begin:
                ranges[-1] = (ranges[-1][0], at)
            else:
                ranges.append((begin, at))
        if count < _EXTENTS:
            return tuple(ranges)


def without_now(tree: Snapshot) -> Snapshot:
    """Times that were not set but happened are all the same."""
    now = time.time_ns()
    return {
        name: replace(entry, mtime_ns=0) if abs(entry.mtime_ns - now) < _YEAR_NS else entry
        for name, entry in tree.items()
    }


def without_holes(tree: Snapshot) -> Snapshot:
    """Zeros and holes are the same."""
    return {name: replace(entry, blocks=()) for name, entry in tree.items()}


def differences(one: Snapshot, other: Snapshot) -> list[str]:
    """One line for each field that differs."""
    found = [f"{name!r} is only in the first" for name in sorted(one.keys() - other.keys())]
    found += [f"{name!r} is only in the second" for name in sorted(other.keys() - one.keys())]
    for name in sorted(one.keys() & other.keys()):
        for field in fields(Entry):
            left, right = getattr(one[name], field.name), getattr(other[name], field.name)
            if left != right:
                found.append(f"{name!r}: {field.name} {left!r} != {right!r}")
    return found
