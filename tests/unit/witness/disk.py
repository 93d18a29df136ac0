"""A disk that keeps only what was synced: watches the calls of a process and shows what a loss of power would leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


class Disk:
    """Below `root`: contents count from the sync of their file, names from the sync of their folder."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._sync = os.fsync
        self.after: Callable[[], None] = lambda: None
        """Called after each sync: the power may go at any of these moments."""
        self.broken = False
        patch.setattr(os, "fsync", self._fsync)

    def _fsync(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(5, os.strerror(5))
        self._sync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_relative_to(self._root):
            if path.is_dir():
                self._names[path] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
            else:
                self._contents[path.stat().st_ino] = path.read_bytes()
        self.after()

    def after_power_loss(self, place: Path) -> Path:
        """A copy of `root` as the machine would find it, at `place`."""
        self._restore(self._root, place)
        return place

    def _restore(self, folder: Path, place: Path) -> None:
        place.mkdir(parents=True)
        for name, number in self._names.get(folder, {}).items():
            if (folder / name) in self._names:
                self._restore(folder / name, place / name)
            elif number in self._contents:
                (place / name).write_bytes(self._contents[number])
