"""The names of one directory in memory, and what a POSIX file system answers to a request about them. Pure.

A `Names` is a frozen value; `after` gives the next value and the errno. Of each object only what makes names interesting is kept:
whether it is a directory, a file or a symbolic link (to nowhere), and which names are one object.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

FILE, DIRECTORY, LINK = "f", "d", "l"
DEFINITE = frozenset(
    {
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOTEMPTY,
        errno.EINVAL,
        errno.EPERM,
    }
)
"""Refusals that are answers about names. Any other error says only that something went wrong."""


@dataclass(frozen=True)
class Object:
    """What one or several names stand for. `number` tells it from every other one."""

    number: int
    kind: str


Shape = tuple[frozenset[tuple[str, str]], frozenset[frozenset[str]]]
"""What can be seen of names: (name, kind) of each, and which names of what is no directory are one object."""


@dataclass(frozen=True)
class Names:
    """All names below a directory, as relative paths."""

    objects: Mapping[str, Object] = field(default_factory=dict)
    made: int = 0
    """How many objects were ever made."""

    def after(self, do: str, args: Sequence[str]) -> tuple[Names, int]:
        """The names after a request, and its errno (0: done)."""
        match do, tuple(args):
            case "mkdir", (path,):
                return self._make(path, DIRECTORY)
            case "create", (path,):
                return self._make(path, FILE)
            case "symlink", (path,):
                return self._make(path, LINK)
            case "unlink", (path,):
                return self._unlink(path)
            case "rmdir", (path,):
                return self._rmdir(path)
            case "link", (old, new):
                return self._link(old, new)
            case "rename", (old, new):
                return self._rename(old, new)
            case "sync", ():
                return self, 0
        raise ValueError(f"no request is called {do} {args}")

    def shape(self) -> Shape:
        """What can be seen."""
        return shape_of((path, thing.kind, str(thing.number)) for path, thing in self.objects.items())

    # --- requests

    def _make(self, path: str, kind: str) -> tuple[Names, int]:
        error = self._parent_error(path) or (errno.EEXIST if path in self.objects else 0)
        if error:
            return self, error
        return Names({**self.objects, path: Object(self.made, kind)}, self.made + 1), 0

    def _unlink(self, path: str) -> tuple[Names, int]:
        error = self._parent_error(path)
        if error:
            return self, error
        if path not in self.objects:
            return self, errno.ENOENT
        if self.objects[path].kind == DIRECTORY:
            return self, errno.EISDIR
        return self._without(path), 0

    def _rmdir(self, path: str) -> tuple[Names, int]:
        error = self._parent_error(path)
        if error:
            return self, error
        if path not in self.objects:
            return self, errno.ENOENT
        if self.objects[path].kind != DIRECTORY:
            return self, errno.ENOTDIR
        if self._below(path):
            return self, errno.ENOTEMPTY
        return self._without(path), 0

    def _link(self, old: str, new: str) -> tuple[Names, int]:
        error = self._parent_error(old)
        if error:
            return self, error
        if old not in self.objects:
            return self, errno.ENOENT
        error = self._parent_error(new) or (errno.EEXIST if new in self.objects else 0)
        if error:
            return self, error
        if self.objects[old].kind == DIRECTORY:
            return self, errno.EPERM
        return Names({**self.objects, new: self.objects[old]}, self.made), 0

    def _rename(self, old: str, new: str) -> tuple[Names, int]:
        error = self._parent_error(old) or self._parent_error(new)
        if error:
            return self, error
        if old not in self.objects:
            return self, errno.ENOENT
        if new.startswith(f"{old}/"):
            return self, errno.EINVAL
        if old.startswith(f"{new}/"):
            return self, errno.ENOTEMPTY
        moved, target = self.objects[old], self.objects.get(new)
        if target == moved:
            return self, 0
        if target is not None:
            if moved.kind == DIRECTORY and target.kind != DIRECTORY:
                return self, errno.ENOTDIR
            if moved.kind != DIRECTORY and target.kind == DIRECTORY:
                return self, errno.EISDIR
            if self._below(new):
                return self, errno.ENOTEMPTY
        objects = {path: thing for path, thing in self.objects.items() if path not in (old, new)}
        for path in self._below(old):
            objects[new + path.removeprefix(old)] = objects.pop(path)
        objects[new] = moved
        return Names(objects, self.made), 0

    # --- names

    def _parent_error(self, path: str) -> int:
        """Why `path` cannot be looked up in the directory that it names."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            thing = self.objects.get("/".join(parts[:depth]))
            if thing is None or thing.kind == LINK:  # a link to nowhere is followed, and found to be missing
                return errno.ENOENT
            if thing.kind != DIRECTORY:
                return errno.ENOTDIR
        return 0

    def _below(self, path: str) -> list[str]:
        return [name for name in self.objects if name.startswith(f"{path}/")]

    def _without(self, path: str) -> Names:
        return Names({name: thing for name, thing in self.objects.items() if name != path}, self.made)


def shape_of(seen: Iterable[tuple[str, str, str]]) -> Shape:
    """The shape of names that were read from a disk: (name, kind, which object)."""
    names, groups = set(), dict[str, set[str]]()
    for path, kind, number in seen:
        names.add((path, kind))
        if kind != DIRECTORY:
            groups.setdefault(number, set()).add(path)
    return frozenset(names), frozenset(frozenset(group) for group in groups.values())
