"""Processes and services that must run (spec §3.9, §6.2 errd): resource `proc.<name>`.

Pure matching over a list of processes, and two readers: `/proc` and systemd. Who is missing is reported with what the
configuration asks for; acting is the module's business.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safekit.config import Proc

NAME_LIMIT = 15
"""The kernel keeps this many bytes of a command's name."""


@dataclass(frozen=True, slots=True)
class Process:
    """A running process: the name of its command, and its arguments joined by spaces (the first is the executable)."""

    pid: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at the processes says of one `<proc>`: how many run, and whether that is allowed."""

    proc: Proc
    count: int
    right: bool

    @property
    def sentence(self) -> str:
        """As the log shows it (spec §6.2)."""
        kind = "Service" if self.proc.service else "Process"
        if self.right:
            return f"{kind} {self.proc.name} running"
        if self.proc.atmax >= 0 and self.count > self.proc.atmax:
            return f"{kind} {self.proc.name} running {self.count} times, at most {self.proc.atmax} allowed"
        if self.count:
            return f"{kind} {self.proc.name} running {self.count} times, at least {self.proc.atleast} needed"
        return f"{kind} {self.proc.name} not running"


def matches(proc: Proc, process: Process) -> bool:
    """Whether a process is one of those that `proc` means: all that is given must fit."""
    if proc.nameregex is not None:
        if not re.search(proc.nameregex, process.name):
            return False
    elif process.name != proc.name[:NAME_LIMIT]:
        return False
    return proc.argregex is None or re.search(proc.argregex, process.arguments) is not None


def judge(proc: Proc, count: int) -> Finding:
    """Whether `count` running ones are as many as `proc` wants; -1 means: no limit."""
    enough = proc.atleast < 0 or count >= proc.atleast
    few = proc.atmax < 0 or count <= proc.atmax
    return Finding(proc, count, enough and few)


def running(root: Path = Path("/proc")) -> Iterator[Process]:
    """All processes but the kernel's own threads and those that ended and were not waited for."""
    for folder in root.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            status = (folder / "stat").read_text(errors="surrogateescape")
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        name, _, rest = status.partition("(")[2].rpartition(")")
        if rest.split(maxsplit=1)[0] in ("Z", "X") or not line:
            continue
        yield Process(int(folder.name), name, line.rstrip(b"\0").replace(b"\0", b" ").decode(errors="surrogateescape"))


async def active_units(names: Iterable[str]) -> frozenset[str]:
    """Which of these systemd units are active; the empty set when systemd does not answer."""
    asked = tuple(names)
    if not asked:
        return frozenset()
    try:
        command = await asyncio.create_subprocess_exec(
            "systemctl",
            "is-active",
            "--",
            *asked,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return frozenset()
    said = (await command.communicate())[0].decode().split()
    return frozenset(name for name, state in zip(asked, said, strict=False) if state in ("active", "reloading"))


async def look(procs: Iterable[Proc], read: Callable[[], Iterable[Process]] = running) -> tuple[Finding, ...]:
    """One look at everything that the given elements name."""
    wanted = tuple(procs)
    alive = await active_units(proc.name for proc in wanted if proc.service)
    table = tuple(read()) if any(not proc.service for proc in wanted) else ()
    return tuple(
        judge(proc, int(proc.name in alive) if proc.service else sum(matches(proc, process) for process in table))
        for proc in wanted
    )
