"""What must hold for the replicated directories of a module before it is applied or started (spec §3.6, `tocheck`)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class ReplicatedDirectory:
    """One `<replicated>`: its absolute path, and the relative paths that must exist in it."""

    path: Path
    tocheck: tuple[str, ...] = ()


@dataclass
class DirectoryError(Exception):
    """A directory that cannot be replicated.

    `code`: relative | missing | not_a_directory | nested | mounted | tocheck | outside. `expected` says what must hold.
    """

    code: str
    path: str
    expected: str

    def __str__(self) -> str:
        return f"replicated directory {self.path}: {self.expected}"


def check_directories(
    directories: Iterable[ReplicatedDirectory], *, taken: Iterable[Path] = (), mounts: str = "/proc/self/mounts"
) -> None:
    """Raises DirectoryError for the first thing that is wrong. `taken`: the directories of other modules."""
    wanted = tuple(directories)
    ours = _mounts_of_ours(mounts)
    for directory in wanted:
        _check_one(directory, ours)
    real = [(directory.path, directory.path.resolve()) for directory in wanted]
    for index, (path, resolved) in enumerate(real):
        for other, other_resolved in (*real[:index], *((other, other.resolve()) for other in taken)):
            if resolved == other_resolved:
                raise DirectoryError("nested", str(path), f"is replicated already (as {other})")
            if resolved.is_relative_to(other_resolved) or other_resolved.is_relative_to(resolved):
                raise DirectoryError("nested", str(path), f"must not lie in or around {other}, which is replicated too")


def left_mounted(directories: Iterable[Path], *, mounts: str = "/proc/self/mounts") -> tuple[Path, ...]:
    """Those of `directories` that a mount of ours covers. Where no data plane runs, a killed one left it: nothing can be
    read through it, and the next data plane removes it as it begins.
    """
    ours = _mounts_of_ours(mounts)
    return tuple(path for path in directories if PurePosixPath(os.path.realpath(path)) in ours)


def _check_one(directory: ReplicatedDirectory, ours: tuple[PurePosixPath, ...]) -> None:
    path = directory.path
    if not path.is_absolute():
        raise DirectoryError("relative", str(path), "must be an absolute path")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DirectoryError("missing", str(path), "does not exist; create it on this node first") from None
    except OSError as error:
        raise DirectoryError("missing", str(path), f"cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise DirectoryError("not_a_directory", str(path), "is not a directory")
    resolved = PurePosixPath(path.resolve())
    if resolved == PurePosixPath("/"):
        raise DirectoryError("nested", str(path), "the root of the system cannot be replicated")
    for mount in ours:
        if mount != resolved and resolved.is_relative_to(mount):
            raise DirectoryError("mounted", str(path), f"lies in {mount}, which is replicated at this moment")
    for relative in directory.tocheck:
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts:
            raise DirectoryError(
                "outside", str(path), f"tocheck {relative!r} must be a relative path inside the directory"
            )
        if not os.path.lexists(path / relative):
            raise DirectoryError(
                "tocheck", str(path), f"{relative!r} is missing in it (tocheck): is its file system mounted?"
            )


def _mounts_of_ours(table: str) -> tuple[PurePosixPath, ...]:
    found = []
    with Path(table).open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            if len(fields) > 2 and fields[2] == "fuse.safekit":
                found.append(PurePosixPath(fields[1].encode("utf-8", "surrogateescape").decode("unicode_escape")))
    return tuple(found)
