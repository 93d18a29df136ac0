"""The probes of the checkers, against real sockets of this machine."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from datetime import timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.checkers import Probe, ping_probe, tcp_probe
from safekit.checkers.ping import checksum, echo_request, is_reply
from safekit.config import PingCheck, TcpCheck


class Told:
    """Keeps what a probe reports, and lets a test wait for it."""

    def __init__(self) -> None:
        self.values: list[tuple[str, str]] = []
        self._told = asyncio.Condition()

    def __call__(self, name: str, value: str, by: str) -> bool:
        """A report."""
        changed = not self.values or self.values[-1] != (name, value)
        if changed:
            self.values.append((name, value))
            self._tell = asyncio.ensure_future(self._notify())
        return changed

    async def _notify(self) -> None:
        async with self._told:
            self._told.notify_all()

    async def until(self, *values: tuple[str, str]) -> None:
        """Wait for exactly these changes."""
        async with self._told:
            await asyncio.wait_for(self._told.wait_for(lambda: self.values == list(values)), 10)


def tcp(port: int) -> TcpCheck:
    return TcpCheck(
        "web", "prim", "restart", ip_address("127.0.0.1"), port, timedelta(seconds=0.05), timedelta(seconds=2)
    )


def ping(address: str) -> PingCheck:
    return PingCheck("router", "pre", "wait", ip_address(address), timedelta(seconds=0.05), timedelta(seconds=0.5))


def watched(work: Callable[[Told], Awaitable[None]], probe: Probe) -> list[tuple[str, str]]:
    """What `probe` reports while `work` goes on."""

    async def run() -> list[tuple[str, str]]:
        told = Told()
        task = asyncio.ensure_future(probe.run(told))
        try:
            await work(told)
        finally:
            task.cancel()
        return told.values

    return asyncio.run(run())


def test_a_tcp_service_is_up_while_it_accepts_and_down_when_it_refuses() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]

    async def story(told: Told) -> None:
        await told.until(("tcp.web", "down"))
        server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port)
        await told.until(("tcp.web", "down"), ("tcp.web", "up"))
        server.close()
        await told.until(("tcp.web", "down"), ("tcp.web", "up"), ("tcp.web", "down"))

    assert watched(story, tcp_probe(tcp(port)))[-1] == ("tcp.web", "down")


def test_a_checker_that_is_ended_while_a_connection_is_accepted_ends() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.transport.abort(), "127.0.0.1", 0)
        probe = tcp_probe(tcp(server.sockets[0].getsockname()[1]))
        for steps in range(40):
            task = asyncio.ensure_future(probe.run(Told()))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=60)
            assert task.cancelled(), steps
        server.close()

    asyncio.run(run())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_machine_that_answers_is_up(address: str) -> None:
    async def story(told: Told) -> None:
        await told.until(("ping.router", "up"))

    watched(story, ping_probe(ping(address)))


def test_a_machine_that_does_not_answer_is_down() -> None:
    async def story(told: Told) -> None:
        await told.until(("ping.router", "down"))

    watched(story, ping_probe(ping("203.0.113.1")))


def test_one_failure_within_the_grace_changes_nothing() -> None:
    answers = iter([True, False, True, False, False])

    async def ask() -> bool:
        return next(answers, False)

    async def story(told: Told) -> None:
        await told.until(("custom.x", "up"), ("custom.x", "down"))

    watched(story, Probe("custom.x", "test", 0.0, ask, grace=2))


@given(st.binary(min_size=2, max_size=64).filter(lambda data: len(data) % 2 == 0))
def test_a_message_with_its_checksum_sums_to_zero(message: bytes) -> None:
    assert checksum(message + struct.pack("!H", checksum(message))) == 0


@given(st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=80))
def test_only_the_reply_to_our_own_request_counts(identifier: int, other: int, noise: bytes) -> None:
    payload = b"0123456789abcdef"
    request = echo_request(socket.AF_INET6, identifier, 1, payload)
    reply = bytes([129]) + request[1:]
    assert is_reply(socket.AF_INET6, reply, identifier, payload)
    assert not is_reply(socket.AF_INET6, request, identifier, payload)
    assert not is_reply(socket.AF_INET6, reply, identifier, payload[::-1])
    assert is_reply(socket.AF_INET6, reply, other, payload) is (other == identifier)
    assert not is_reply(socket.AF_INET, noise, identifier, payload)
