"""The control group (cgroups(7)) of each module: what its scripts started stays together in it, and is ended as a whole.

`safekitd` makes the groups below its own, which systemd delegates to it (`Delegate=` of its unit); a script enters the
group of its module before it begins, and whatever it starts is born there. No process can leave: a daemon that
forks twice, a shell in the background, what has another session. Only systemd moves processes elsewhere: a unit has a group of
its own, so units are ended beside, by their names.

`end` waits for nothing: no disk, no other process. The kernel ends a group as a whole (`cgroup.kill`, Linux 5.14), also what
forks meanwhile; an older kernel is told of each process, and has to be told again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

HIERARCHY = Path("/sys/fs/cgroup")
_DEEPEST = 6
"""Slices below slices that are looked through for a unit."""


class Groups:
    """The groups below `own`, the one of this process; None: there are none, and scripts run where the daemon runs."""

    def __init__(self, own: Path | None) -> None:
        self._own = own

    @classmethod
    def here(cls, hierarchy: Path = HIERARCHY, told: Path = Path("/proc/self/cgroup")) -> Groups:
        """Of this process, when it is the service of systemd whose group is its own to divide."""
        with suppress(OSError, StopIteration):
            unified = next(line for line in told.read_text().splitlines() if line.startswith("0::/"))
            own = hierarchy / unified.removeprefix("0::/")
            if own.name.endswith(".service") and (own / "cgroup.procs").exists():
                return cls(own)
        return cls(None)

    def of(self, module: str) -> Path | None:
        """The group of a module, made if it is not there; None when it cannot be."""
        if self._own is None:
            return None
        group = self._own / f"module-{module}"
        try:
            group.mkdir(exist_ok=True)
        except OSError:
            return None
        return group

    def forget(self, module: str) -> None:
        """Remove the group of a module that is gone; one in which something still runs stays."""
        if self._own is not None:
            with suppress(OSError):
                (self._own / f"module-{module}").rmdir()


def end(names: Iterable[str], hierarchy: Path = HIERARCHY) -> None:
    """Kill everything in these groups: a path, or the name of a systemd unit. Raises nothing."""
    for path in _paths(names, hierarchy):
        _kill(path)


def are_empty(names: Iterable[str], hierarchy: Path = HIERARCHY) -> bool:
    """Whether nothing runs in any of these groups, nor below."""
    return not any(_is_populated(path) for path in _paths(names, hierarchy))


def _is_populated(path: str) -> bool:
    try:
        return "populated 0" not in Path(path, "cgroup.events").read_text()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _paths(names: Iterable[str], hierarchy: Path) -> list[str]:
    paths, units = [], set()
    for name in names:
        if name.startswith("/"):
            paths.append(name)
        else:
            units.add(name)
    if units:
        with suppress(OSError):
            paths += _of_units(str(hierarchy), units, _DEEPEST)
    return paths


def _of_units(slice_: str, units: set[str], depth: int) -> Iterator[str]:
    """Their groups: a unit is below a slice, and slices are below slices."""
    with os.scandir(slice_) as entries:
        for entry in entries:
            if entry.name in units:
                yield entry.path
            elif depth and entry.name.endswith(".slice"):
                yield from _of_units(entry.path, units, depth - 1)


def _kill(path: str) -> None:
    try:
        door = os.open(f"{path}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        _kill_each(path)
        return
    with suppress(OSError):
        os.write(door, b"1")
    os.close(door)


def _kill_each(path: str) -> None:
    with suppress(OSError, ValueError):
        for pid in Path(path, "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
