"""Comparing the two copies of a mirror on request or by the clock (spec §4.9.6): one at a time, its last result kept.

The data plane compares; here its progress and its end become a value, a line of the log and resources.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from safekit.module.resync import Log, Values
from safekit.replication import CompareEnded, CompareProgress, DiffEnded, DiffProgress

Kind = Literal["verify", "diff"]
MOST_ENTRIES: Final = 200
"""How many differing paths are kept with the result; the data plane's file has them all."""


@dataclass(frozen=True)
class Comparison:
    """The present or last one. `equal` is None until it ended, and when it failed (`failed` says why)."""

    kind: Kind
    running: bool
    since: datetime
    ended: datetime | None = None
    progress: CompareProgress = field(default_factory=CompareProgress)
    result: CompareEnded | None = None
    entries: tuple[str, ...] = ()

    @property
    def equal(self) -> bool | None:
        """Whether the copies are equal."""
        return None if self.result is None or self.result.failed else self.result.equal


class Comparisons:
    """The comparisons of one module."""

    def __init__(self, log: Log, resources: Values) -> None:
        self._log = log
        self._resources = resources
        self._over = asyncio.Event()
        self.last: Comparison | None = None

    def begin(self, kind: Kind) -> Comparison:
        """The data plane is asked to begin one."""
        self._over = asyncio.Event()
        self.last = Comparison(kind, True, datetime.now(UTC))
        return self.last

    def progressed(self, progress: CompareProgress) -> None:
        """It is this far; also one that the other node asked for."""
        kind: Kind = "diff" if isinstance(progress, DiffProgress) else "verify"
        if self.last is None or not self.last.running:
            self.begin(kind)
        if self.last is not None and self.last.kind == kind:
            self.last = replace(self.last, progress=progress)

    async def ended(self, result: CompareEnded) -> None:
        """It is over; also one that the other node asked for."""
        kind: Kind = "diff" if isinstance(result, DiffEnded) else "verify"
        if self.last is None or not self.last.running or self.last.kind != kind:
            self.begin(kind)
        assert self.last is not None
        entries = await asyncio.to_thread(_first_lines, result.list)
        self.last = replace(self.last, running=False, ended=datetime.now(UTC), result=result, entries=entries)
        self._tell(self.last, result)
        self._over.set()

    async def lost(self, why: str) -> None:
        """The data plane cannot end it any more."""
        if self.last is not None and self.last.running:
            await self.ended(DiffEnded(failed=why) if self.last.kind == "diff" else CompareEnded(failed=why))

    def _tell(self, comparison: Comparison, result: CompareEnded) -> None:
        if result.failed:
            self._log.write("rfs", "C", f"Comparing the copies ({comparison.kind}) failed: {result.failed}")
            return
        compared = f"{result.files} files, {result.bytes / 1e6:.1f} MB compared"
        if comparison.kind == "verify":
            self._resources.set("rfs.verify", "up" if result.equal else "down")
        if result.equal:
            self._log.write("rfs", "E", f"The copies are equal: {compared}")
            return
        some = f", for example {', '.join(comparison.entries[:3])}" if comparison.entries else ""
        self._log.write(
            "rfs",
            "C",
            f"The copies differ: {result.differing_files} files, {result.differing_bytes / 1e6:.1f} MB to copy "
            f"({compared}){some}",
        )

    async def wait(self, seconds: float) -> Comparison | None:
        """The present one, after its end or after so many seconds."""
        if self.last is not None and self.last.running and seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._over.wait()
            except TimeoutError:
                pass
        return self.last


def _first_lines(path: str) -> tuple[str, ...]:
    if not path:
        return ()
    found: list[str] = []
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if len(found) == MOST_ENTRIES:
                    break
                found.append(line.rstrip("\n"))
    except OSError:
        return ()
    return tuple(found)
