"""What `safekit-pulse` keeps: the number of its last life, and what it needs to go on beating after a restart.

`/run/safekit/pulse.json` (0600: it holds the keys) is replaced whole. It is written when something changed and at
least every `WRITE_EVERY_S`, so its age also tells how long the process was away. It is not synced: it must survive
the process, not the machine. The number of the last life is also kept in `/var/safekit`, for a node whose clock goes
back over a reboot; not synced either, because nothing here may wait for a disk. When both are lost the peers help out
(`sealed.py`).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from safekit.membership.sealed import Incarnation

WRITE_EVERY_S = 2.0
RECENT_S = 5.0
"""A process that was away for longer presumes nothing about its peers."""
_FORMAT = 1


class Lives:
    """Hands out incarnations, each later than all before, over restarts and reboots."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files
        self._last = max((_read_number(path) for path in files), default=0)

    def next(self) -> Incarnation:
        """A life that begins now."""
        life = Incarnation.after(self._last, time.time_ns())
        self.exceed(life.number)
        return life

    def exceed(self, number: int) -> None:
        """Every later life has a number above this one."""
        self._last = max(self._last, number)
        for path in self._files:
            try:
                replace(path, str(self._last).encode())
            except OSError:
                # A full or read-only disk must not silence the node; the other copy, the clock or the peers serve.
                continue


def _read_number(path: Path) -> int:
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return 0


def replace(path: Path, content: bytes) -> None:
    """The file at `path`, mode 0600, holds all of `content` or is as it was."""
    beside = path.with_name(f"{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    beside.replace(path)


def boot_id() -> str:
    """Which boot of the machine this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def save(path: Path, now: float, channels: list[dict[str, Any]]) -> None:
    """Replace the state file; `now` in seconds since boot."""
    state = {"format": _FORMAT, "boot": boot_id(), "saved": now, "channels": channels}
    replace(path, json.dumps(state, separators=(",", ":")).encode())


def load(path: Path, now: float) -> tuple[list[dict[str, Any]], bool]:
    """(channels, recent) of an earlier life of this boot; nothing if the file is absent or of another release."""
    try:
        state = json.loads(path.read_bytes())
        if state["format"] == _FORMAT and state["boot"] == boot_id():
            return list(state["channels"]), 0 <= now - state["saved"] <= RECENT_S
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return [], False
