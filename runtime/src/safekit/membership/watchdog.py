"""The watchdog of this machine: it resets the machine when an application may outlive its lease and nothing else ended it.

Only where `VAR/watchdog` names a device, and only while a lease is needed, the device is open. Its timeout is at most half
of the shortest such lease. It is fed as long as each of them lasts longer than that timeout, or ran out and nothing of its
application is left (`groups.py`). So a process that stands still, and an application that cannot be killed, are over before the
other node may begin; a node that gave up in order goes on. A magic close ends the watch when no lease is needed any
more, and at an orderly end of this process. A kill is neither: the next life of this process has the time that is left.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_SET_TIMEOUT, _GET_TIMEOUT = 0xC0045706, 0x80045707
_FEEDS_PER_TIMEOUT = 10
_OPENED_AGAIN_S = 1.0
SHORTEST_LEASE_S = 2.0
"""A watchdog counts whole seconds, and its timeout is at most half of a lease."""


class Watched(Protocol):
    """A lease without which this node may not run an application."""

    @property
    def length(self) -> float:
        """Of the lease, in seconds."""

    def is_safe(self, now: float, seconds: float) -> bool:
        """Whether nothing can outlive the lease if this process did nothing more and the machine were reset after that."""


def configured(path: Path) -> str | None:
    """The device that a file names, None when there is no such file; ValueError when it names none."""
    try:
        text = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    if not text.startswith("/") or "\n" in text:
        raise ValueError(
            f"{path}: line 1: {text.splitlines()[0] if text else ''!r}: expected one line with the path of a device, "
            "for example /dev/watchdog"
        )
    return text


class Watchdog:
    """`keep` is called at `due` and when a lease changed. device: None never opens anything. say: hears each trouble once."""

    def __init__(self, device: str | None, say: Callable[[str], None]) -> None:
        self._device, self._say = device, say
        self._door: int | None = None
        self._asked = 0
        self._timeout = 0.0
        self._next = 0.0
        self._watching = False
        self._trouble = ""

    @property
    def due(self) -> float:
        """When `keep` wants to be called; in seconds since boot."""
        return self._next if self._watching else float("inf")

    def keep(self, now: float, leases: Iterable[Watched]) -> None:
        """Feed it, if these leases allow that."""
        if self._device is None:
            return
        needed = tuple(leases)
        self._watching = bool(needed)
        if not needed:
            self.close()
        elif now >= self._next and self._ready(now, min(lease.length for lease in needed)):
            self._next = now + self._timeout / _FEEDS_PER_TIMEOUT
            if all(lease.is_safe(now, self._timeout) for lease in needed):
                self._write(b"\0")

    def close(self) -> None:
        """Nothing is watched any more."""
        self._next = 0.0
        if self._door is not None:
            self._write(b"V")
            self._drop()

    def _ready(self, now: float, shortest: float) -> bool:
        """Whether the device is open, with a timeout that suits a lease of that length."""
        asked = int(shortest / 2)
        if self._door is None or asked != self._asked:
            self._next = now + _OPENED_AGAIN_S
            if shortest < SHORTEST_LEASE_S:
                return self._unusable(f"a lease of {shortest:g} s is too short for it: it needs {SHORTEST_LEASE_S:g} s")
            try:
                if self._door is None:
                    self._door = os.open(str(self._device), os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                self._timeout = float(_set_timeout(self._door, asked))
            except OSError as error:
                return self._unusable(error.strerror or str(error))
            if not 0 < self._timeout <= shortest / 2:
                return self._unusable(
                    f"it resets after {self._timeout:g} s, expected at most half of the lease of {shortest:g} s"
                )
            self._asked, self._trouble = asked, ""
        return True

    def _unusable(self, why: str) -> bool:
        if why != self._trouble:
            self._trouble = why
            self._say(f"the watchdog {self._device} is not used: {why}")
        if self._door is not None:
            with suppress(OSError):
                os.write(self._door, b"V")
            self._drop()
        return False

    def _write(self, what: bytes) -> None:
        assert self._door is not None
        try:
            os.write(self._door, what)
        except BlockingIOError:
            pass
        except OSError as error:
            self._unusable(error.strerror or str(error))

    def _drop(self) -> None:
        if self._door is not None:
            os.close(self._door)
        self._door, self._asked = None, 0


def _set_timeout(door: int, seconds: int) -> int:
    """The timeout that the device has now; one that cannot be asked (it is no watchdog of the kernel) has what it was told."""
    for request in (_SET_TIMEOUT, _GET_TIMEOUT):
        with suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(door, request, struct.pack("i", seconds)))[0])
    return seconds
