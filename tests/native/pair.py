"""Two data planes on one machine: two state folders, two directories, one loopback connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from safekit.replication import (
    Connected,
    DataPlane,
    DataPlaneGone,
    DataPlaneProcess,
    Event,
    ProcessSettings,
    Status,
)

WAIT_S = 30.0
SomeEvent = TypeVar("SomeEvent", bound=Event)


@dataclass(frozen=True)
class Excluded:
    """What is not replicated, for each directory."""

    paths: tuple[tuple[str, ...], ...] = ()
    names: tuple[tuple[str, ...], ...] = ()


NOTHING_EXCLUDED = Excluded()


class Side:
    """One node: its process, its directory, and every event that it told."""

    def __init__(
        self,
        folder: Path,
        binary: Path,
        key: bytes,
        ack_timeout: float,
        durability: str,
        names: tuple[str, ...],
        excluded: Excluded,
    ) -> None:
        self.folder = folder
        self.directories = tuple(folder / name.strip("/") for name in names)
        for directory in self.directories:
            directory.mkdir(parents=True, exist_ok=True)
        self.key = folder / "key"
        self.key.write_bytes(key)
        self.settings = ProcessSettings(
            module="test",
            control=folder / "rfs.sock",
            state_dir=folder / "state",
            key_file=self.key,
            directories=self.directories,
            names=names,
            binary=binary,
            ack_timeout=ack_timeout,
            silence_timeout=ack_timeout,
            durability=durability,
            excluded_paths=excluded.paths,
            excluded_names=excluded.names,
        )
        self.process = DataPlaneProcess(self.settings, systemd=False)
        self.events: list[Event] = []
        self._told = asyncio.Condition()
        self._listening: asyncio.Task[None] | None = None

    @property
    def data(self) -> Path:
        """The first replicated directory, as applications name it."""
        return self.directories[0]

    @property
    def plane(self) -> DataPlane:
        """The commands."""
        return self.process.plane

    async def start(self) -> None:
        """Starts the process and listens to its events from its first moment on."""
        await self.process.start()
        ready = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(ready))
        await asyncio.wait_for(ready.wait(), WAIT_S)

    async def _listen(self, ready: asyncio.Event) -> None:
        stream = self.plane.subscribe()
        async with stream as events:
            ready.set()
            async for event in events:
                async with self._told:
                    self.events.append(event)
                    self._told.notify_all()

    async def told(self, kind: type[SomeEvent], seconds: float = WAIT_S) -> SomeEvent:
        """The first event of a kind that was not asked for yet; it and all before it are forgotten."""

        def position() -> int:
            return next((i for i, event in enumerate(self.events) if isinstance(event, kind)), -1)

        async with self._told:
            await asyncio.wait_for(self._told.wait_for(lambda: position() >= 0), seconds)
            at = position()
            event = self.events[at]
            del self.events[: at + 1]
        assert isinstance(event, kind)
        return event

    async def until(self, holds: Callable[[Status], bool], seconds: float = WAIT_S) -> Status:
        """The first status for which a condition holds."""
        async with asyncio.timeout(seconds):
            while not holds(status := await self.plane.status()):
                await asyncio.sleep(0.02)
        return status

    @property
    def supervisor(self) -> int:
        """The process that was started."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def worker(self) -> int:
        """The process that does the work: the supervisor's child, or the only one of an instrumented program."""
        children = Path(f"/proc/{self.supervisor}/task/{self.supervisor}/children").read_text().split()
        return int(children[0]) if children else self.supervisor

    async def kill(self) -> None:
        """SIGKILL of worker and supervisor together, which is the end of both; the mount stays behind."""
        supervisor, worker = self.supervisor, self.worker
        if supervisor != worker:
            os.kill(supervisor, signal.SIGSTOP)
            os.kill(worker, signal.SIGKILL)
        os.kill(supervisor, signal.SIGKILL)
        await self.process.ended()
        await self._stop_listening()

    async def restart(self) -> None:
        """After a kill."""
        self.events.clear()
        await self.start()

    async def close(self) -> None:
        """Ends the process and whatever is still mounted."""
        with contextlib.suppress(DataPlaneGone, Exception):
            await self.plane.idle(force=True)
        await self.process.stop()
        await self._stop_listening()
        for directory in self.directories:
            point = str(directory).replace(" ", "\\040")
            for _ in range(Path("/proc/self/mountinfo").read_text().count(f" {point} ")):
                subprocess.run(["umount", "-l", directory], check=True)

    async def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, DataPlaneGone):
                await self._listening
        self._listening = None


class Pair:
    """A primary `a` and a secondary `b`."""

    def __init__(
        self,
        folder: Path,
        binary: Path,
        *,
        ack_timeout: float = 10.0,
        durability: str = "second",
        names: tuple[str, ...] = ("/data",),
        excluded: Excluded = NOTHING_EXCLUDED,
    ) -> None:
        self.a = Side(folder / "a", binary, b"0123456789abcdef" * 2, ack_timeout, durability, names, excluded)
        self.b = Side(folder / "b", binary, b"0123456789abcdef" * 2, ack_timeout, durability, names, excluded)
        self.port = free_port()

    async def start(self) -> None:
        """Both processes, idle."""
        await self.a.start()
        await self.b.start()

    async def serve(self) -> None:
        """`a` primary and alone, `b` listening."""
        await self.start()
        await self.a.plane.primary(generation="1")
        await self.listen(self.b)

    async def listen(self, side: Side) -> None:
        """Makes a side the secondary, on the port of the pair."""
        await side.plane.secondary("127.0.0.1", self.port, generation="0")

    async def connect(self, side: Side | None = None, *, full: bool = False) -> Connected:
        """Connects the primary to whoever listens."""
        return await (side or self.a).plane.connect("127.0.0.1", self.port, generation="2", full=full)

    async def mirror(self) -> None:
        """Connects, and waits for the mirror."""
        await self.connect()
        await in_mirror(self.a)

    async def close(self) -> None:
        """Whatever the state."""
        await self.a.close()
        await self.b.close()


async def in_mirror(side: Side) -> None:
    """Until a primary is in mirror."""
    await side.until(lambda status: status.peer == "mirror")


def encrypt(pair: Pair, encryption: str) -> None:
    """What both data planes are told about encryption when they start: "on" or "off"."""
    for side in (pair.a, pair.b):
        side.process = type(side.process)(replace(side.settings, options=("--encryption", encryption)), systemd=False)


@contextlib.asynccontextmanager
async def opened(pair: Pair) -> AsyncIterator[Pair]:
    """A pair that leaves nothing behind."""
    try:
        yield pair
    finally:
        await pair.close()


def free_port() -> int:
    """A port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def in_thread(work: Callable[[], Any]) -> Any:
    """I/O through the mount, beside the loop that drives the data planes."""
    return await asyncio.to_thread(work)


def beside(work: Callable[[], Any]) -> asyncio.Task[Any]:
    """I/O that may have to wait."""
    coroutine: Coroutine[Any, Any, Any] = asyncio.to_thread(work)
    return asyncio.create_task(coroutine)
