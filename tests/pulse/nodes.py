"""Nodes of the tests of `safekit-pulse`: each a real process with a loopback address of its own, and a real client."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import safekit
from safekit.membership import (
    Channel,
    GroupChannel,
    GroupLan,
    HeartbeatChannel,
    HeartbeatLink,
    Pulse,
    PulseEvent,
)

KEY = bytes(range(32))
LIMIT_S = 60.0
"""What is awaited here takes well below a second; a busy machine may take its time."""
LONG_S = 30.0
"""A silence that no stall of a busy machine is taken for. How long a silence is one is proven with a simulated clock, in
tests/unit/membership.
"""
SOURCES = str(Path(safekit.__file__).parents[1])
Event = TypeVar("Event", bound=PulseEvent)


def free_port() -> int:
    """A UDP port that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def mirror(node: str, peer: str, addresses: Mapping[str, str], port: int, **options: float) -> HeartbeatChannel:
    """A mirror's heartbeat channel on one link. options: `pulse` and `timeout`, in seconds."""
    pulse, timeout = options.get("pulse", 0.1), options.get("timeout", LONG_S)
    link = HeartbeatLink(
        "default", addresses[node], addresses[peer], timedelta(seconds=pulse), timedelta(seconds=timeout)
    )
    return HeartbeatChannel("mirror:db", node, peer, port, KEY, (link,))


def farm(node: str, addresses: Mapping[str, str], port: int, silence: float = LONG_S) -> GroupChannel:
    """A farm's membership channel on one lan; after `silence` seconds a member is lost."""
    peers = tuple((name, address) for name, address in addresses.items() if name != node)
    lans = (GroupLan("default", addresses[node], peers),)
    lost = round(silence / 0.1)
    return GroupChannel("farm:web", node, port, KEY, lans, slost_count=lost, mlost_count=2 * lost)


class PulseNode:
    """One node: its `safekit-pulse`, and what its daemon was told."""

    def __init__(self, name: str, folder: Path, command: tuple[str, ...] = ()) -> None:
        self.name, self.folder, self.command = name, folder, command
        self.process: subprocess.Popen[bytes] | None = None
        self.told: list[PulseEvent] = []
        self._news = asyncio.Event()
        self.client = Pulse(folder / "run" / "pulse.sock", on_event=self._take)

    def _take(self, event: PulseEvent) -> None:
        self.told.append(event)
        self._news.set()

    def start_pulse(self) -> None:
        """Run `safekit-pulse` as systemd would."""
        command = (*self.command, sys.executable, "-m", "safekit.membership.pulse")
        self.process = subprocess.Popen(
            [*command, str(self.folder / "run"), str(self.folder / "var")], env=os.environ | {"PYTHONPATH": SOURCES}
        )

    async def connect(self) -> None:
        """The daemon's connection to the pulse."""
        await self.client.connect(timedelta(seconds=LIMIT_S))

    def kill_pulse(self) -> None:
        """As the kernel would under a lack of memory."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT_S)

    async def start(self, *channels: Channel, payload: Mapping[str, object] | None = None) -> None:
        """The pulse, the daemon's connection, the channels."""
        self.start_pulse()
        await self.connect()
        await self.set(*channels, payload=payload)

    async def set(self, *channels: Channel, payload: Mapping[str, object] | None = None) -> None:
        """The channels, with one payload on each."""
        for channel in channels:
            await self.client.set_channel(channel)
            if payload is not None:
                await self.client.publish(channel.name, payload)

    async def until(self, condition: Callable[[], bool], limit: float = LIMIT_S) -> None:
        """Wait for news until `condition` holds."""

        async def wait() -> None:
            while not condition():
                self._news.clear()
                await self._news.wait()

        try:
            await asyncio.wait_for(wait(), limit)
        except TimeoutError:
            raise AssertionError(f"{self.name}: not within {limit} s; it was told {self.told}") from None

    async def heard(self, event: PulseEvent, limit: float = LIMIT_S) -> None:
        """Wait until this event was told."""
        await self.until(lambda: event in self.told, limit)

    def count(self, kind: type[PulseEvent]) -> int:
        """How many events of a kind were told."""
        return sum(isinstance(event, kind) for event in self.told)

    async def stop(self) -> None:
        """Leave nothing running."""
        await self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(LIMIT_S)
