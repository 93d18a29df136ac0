"""What a person is told of a resynchronisation while it runs and when it ends (spec §4.9.2): log lines, resources.

In goes what the data plane says every second; nothing here touches the data plane or the module's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from safekit.replication import ResyncProgress

LINE_EVERY_S: Final = 10.0
"""How often the log says how far it is."""


class Log(Protocol):
    """The module's log."""

    def write(self, origin: str, level: str, message: str) -> object:
        """Add a line."""


class Values(Protocol):
    """The module's resources."""

    def set(self, name: str, value: str, *, lasting: bool = True) -> bool:
        """Give a resource a value."""


@dataclass(frozen=True)
class ResyncCounts:
    """What a resynchronisation took: files and bytes compared (0 where only the other node knows), bytes that travelled."""

    files: int = 0
    compared: int = 0
    travelled: int = 0


class ResyncReport:
    """One after the other, the resynchronisations of a module. `now` is a clock in seconds."""

    def __init__(self, log: Log, resources: Values, *, detail: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._resources = resources
        self._detail = detail
        self._now = now
        self.reset()

    def reset(self) -> None:
        """Nothing runs."""
        self.progress: ResyncProgress | None = None
        self.running = False
        self._policy = "default"
        self._began = self._said = self._phase_began = self._now()

    def begin(self, policy: str) -> None:
        """A resynchronisation begins under a policy of §4.9.3."""
        self.reset()
        self.running, self._policy = True, policy

    def show(self, progress: ResyncProgress) -> None:
        """It is this far."""
        now = self._now()
        if not self.running:
            self.begin("default")
        if self.progress is None or progress.phase != self.progress.phase:
            self._phase_began = now
        self.progress = progress
        self._metrics(progress, now - self._phase_began)
        if self._detail:
            self._log.write("rfs", "I", f"Reintegration, {progress.phase}: {in_words(progress)}")
        elif now - self._said >= LINE_EVERY_S:
            self._said = now
            self._log.write("rfs", "E", f"Reintegration: {in_words(progress)}")

    def _metrics(self, progress: ResyncProgress, seconds: float) -> None:
        part = "scan" if progress.phase == "scan" else "copy"
        values = {f"rei_{part}_time_metric": f"{seconds:.0f}"}
        if part == "scan":
            values["rei_scan_count_metric"] = f"{progress.files_done}/{progress.files_total}"
        else:
            values["rei_copy_count_metric"] = f"{progress.files_done}/{progress.files_total}"
            values["rei_copy_size_metric"] = f"{progress.bytes_done}/{progress.bytes_total}"
        for name, value in values.items():
            self._resources.set(f"rfs.{name}", value, lasting=False)

    def end(self, counts: ResyncCounts) -> None:
        """The copies are equal."""
        seconds = max(self._now() - self._began, 0.001)
        parts = [f"{counts.travelled / 1e6:.1f} MB copied"]
        if counts.files:
            parts.insert(0, f"{counts.files} files, {counts.compared / 1e6:.1f} MB compared")
        rate = max(counts.compared, counts.travelled) / 1e6 / seconds
        text = f"Reintegration ended ({self._policy}) after {seconds:.1f} s: {', '.join(parts)}, {rate:.1f} MB/s"
        self._log.write("rfs", "E", text)
        self._resources.set("rfs.reintegre_failed", "down")
        self.reset()

    def broken(self, reason: str) -> None:
        """The connection is gone; a resynchronisation that ran is interrupted."""
        if self.running:
            self._log.write("rfs", "C", f"Reintegration interrupted: {reason or 'the connection was lost'}")
            self._resources.set("rfs.reintegre_failed", "up")
        self.reset()


def in_words(progress: ResyncProgress) -> str:
    """How far it is, as the log shows it."""
    percent = f"{100 * progress.bytes_done // progress.bytes_total} %, " if progress.bytes_total else ""
    left = f", {progress.eta_s} s left" if progress.eta_s >= 0 else ""
    return (
        f"{percent}{progress.bytes_done / 1e6:.1f} of {progress.bytes_total / 1e6:.1f} MB, "
        f"{progress.files_done} of {progress.files_total} files, {progress.rate_bps / 1e6:.1f} MB/s{left}"
    )
