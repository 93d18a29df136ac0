"""Seeded applications: the same seed makes the same requests."""

from __future__ import annotations

import ctypes
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
SIZES = (0, 1, 100, 4096, 5000, 16384, 70_000, 300_000)


class Chaos:
    """Random requests below `root`; `step()` does one and returns what came out of it (a value or an errno)."""

    def __init__(self, root: Path, seed: int, *, big: bool = False) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.big = big
        self.open_files: list[int] = []
        self.last = ""
        self.steps: list[Callable[[], object]] = [
            *[self.write] * 6,
            *[self.create] * 4,
            *[self.rename] * 3,
            self.append,
            self.truncate,
            self.unlink,
            self.mkdir,
            self.rmdir,
            self.link,
            self.symlink,
            self.chmod,
            self.chown,
            self.utime,
            self.setxattr,
            self.removexattr,
            self.punch,
            self.exchange,
            self.fifo,
            self.hold_open,
            self.write_held,
            self.let_go,
        ]

    def step(self) -> object:
        """One request."""
        try:
            step = self.random.choice(self.steps)
            self.last = step.__name__
            return step()
        except OSError as error:
            return error.errno

    def close(self) -> None:
        """Lets every open file go."""
        while self.open_files:
            os.close(self.open_files.pop())

    def path(self) -> Path:
        """Some name, at most three deep, of few, so that requests meet each other."""
        depth = self.random.choice((1, 1, 2, 2, 3))
        return self.root.joinpath(
            *(f"{'dn'[i == depth - 1]}{self.random.randrange(4 if i < depth - 1 else 6)}" for i in range(depth))
        )

    def folder(self) -> Path:
        return self.root.joinpath(*(f"d{self.random.randrange(4)}" for _ in range(self.random.choice((1, 1, 2)))))

    def anything(self) -> Path:
        return self.random.choice((self.path, self.path, self.folder))()

    def content(self) -> bytes:
        return self.random.randbytes(self.random.choice(SIZES + ((3_000_000,) if self.big else ())))

    def write(self) -> object:
        path, content, offset = self.path(), self.content(), self.random.choice((0, 1, 4096, 100_000, 2_000_000))
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            return os.pwrite(fd, content, offset)
        finally:
            os.close(fd)

    def create(self) -> object:
        path, content, mode = self.path(), self.content(), self.random.choice((0o600, 0o644, 0o400))
        fd = os.open(
            path, os.O_WRONLY | os.O_NONBLOCK | os.O_CREAT | self.random.choice((0, os.O_EXCL, os.O_TRUNC)), mode
        )
        try:
            return os.write(fd, content)
        finally:
            os.close(fd)

    def append(self) -> object:
        path, content = self.path(), self.content()
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        try:
            return os.write(fd, content)
        finally:
            os.close(fd)

    def truncate(self) -> None:
        os.truncate(self.path(), self.random.choice(SIZES))

    def unlink(self) -> None:
        os.unlink(self.path())

    def mkdir(self) -> None:
        os.mkdir(self.folder())

    def rmdir(self) -> None:
        os.rmdir(self.folder())

    def rename(self) -> None:
        kind = self.random.choice((self.path, self.path, self.folder))
        os.rename(kind(), kind())

    def link(self) -> None:
        os.link(self.path(), self.path(), follow_symlinks=False)

    def symlink(self) -> None:
        os.symlink(f"target{self.random.randrange(9)}", self.path())

    def chmod(self) -> None:
        os.chmod(self.anything(), self.random.choice((0o755, 0o700, 0o2775, 0o644)))

    def chown(self) -> None:
        os.chown(self.anything(), self.random.randrange(3), self.random.randrange(3), follow_symlinks=False)

    def utime(self) -> None:
        os.utime(
            self.anything(), ns=(self.random.randrange(1 << 60), self.random.randrange(1 << 60)), follow_symlinks=False
        )

    def setxattr(self) -> None:
        os.setxattr(
            self.anything(), f"user.{self.random.randrange(3)}", self.random.randbytes(20), follow_symlinks=False
        )

    def removexattr(self) -> None:
        os.removexattr(self.anything(), f"user.{self.random.randrange(3)}", follow_symlinks=False)

    def punch(self) -> object:
        fd = os.open(self.path(), os.O_RDWR | os.O_NONBLOCK)
        try:
            return LIBC.fallocate(
                fd, 3, ctypes.c_long(self.random.randrange(50_000)), ctypes.c_long(1 + self.random.randrange(200_000))
            )
        finally:
            os.close(fd)

    def exchange(self) -> object:
        one, other = self.anything(), self.anything()
        if one in other.parents or other in one.parents:
            return None
        return LIBC.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)

    def fifo(self) -> None:
        path = self.path()
        if self.random.random() < 0.3:
            os.mkfifo(path)

    def hold_open(self) -> object:
        path = self.path()
        if len(self.open_files) < 5 and path.is_file():
            self.open_files.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        return None

    def write_held(self) -> object:
        content = self.content()
        return os.pwrite(self.random.choice(self.open_files), content, 10) if self.open_files else None

    def let_go(self) -> None:
        if self.open_files:
            os.close(self.open_files.pop(0))


class Background:
    """Applications that go on making requests, each in a thread of its own, until they are stopped."""

    def __init__(self, root: Path, seed: int, threads: int = 2, *, big: bool = False) -> None:
        self._stop = threading.Event()
        self.steps = 0
        self._threads = [
            threading.Thread(target=self._run, args=(Chaos(root, seed + i, big=big),), daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, chaos: Chaos) -> None:
        while not self._stop.is_set():
            chaos.step()
            self.steps += 1
        chaos.close()

    def stop(self) -> None:
        """Waits for the requests on their way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a request was never answered"
