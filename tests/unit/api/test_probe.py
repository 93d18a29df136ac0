"""The answer for load balancers, over TCP (spec §5.5)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from safekit.api import probe
from safekit.api.face import StateInfo
from safekit.paths import Paths
from tests.unit.api.small_node import SmallNode

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
async def node(tmp_path: Path) -> SmallNode:
    """A node with the module `web`, stopped."""
    made = SmallNode(Paths(tmp_path))
    await made.module_install("web", b"x", None, check=False, replace=False)
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture
async def port(node: SmallNode) -> AsyncIterator[int]:
    """Where the probe of this node listens."""
    number = free_port()
    async with probe.answering(node, number):
        yield number


async def ask(port: int, request: bytes) -> bytes:
    """The whole answer to these bytes."""
    async with asyncio.timeout(30):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


async def status(port: int, path: str = "/var/modules/web/ready.txt", method: str = "GET") -> int:
    return int((await ask(port, f"{method} {path} HTTP/1.1\r\nHost: n1\r\n\r\n".encode())).split()[1])


@pytest.mark.parametrize(
    ("state", "substate", "expected"),
    [
        ("UP", "Ready", 200),
        ("PRIM", "Ready", 200),
        ("ALONE", "Ready", 200),
        ("UP", "Transient", 404),
        ("SECOND", "Ready", 404),
        ("WAIT", "NotReady", 404),
        ("STOP", "NotReady", 404),
    ],
)
async def test_it_is_ready_where_it_serves(
    node: SmallNode, port: int, state: str, substate: str, expected: int
) -> None:
    node.move("web", StateInfo(state, substate, NOW))
    assert await status(port) == expected


async def test_what_is_not_a_module_is_not_found(node: SmallNode, port: int) -> None:
    node.move("web", StateInfo("UP", "Ready", NOW))
    for path in (
        "/other",
        "/var/modules/none/ready.txt",
        "/var/modules/web/",
        "/var/modules/../web/ready.txt",
        "/api/v1/node",
    ):
        assert await status(port, path) == 404
    assert await status(port, "/var/modules/web/ready.txt?x=1") == 200


@pytest.mark.parametrize("path", ["/", "/console", "/console/en/monitoring"])
async def test_a_browser_is_sent_to_the_console_of_this_machine(port: int, path: str) -> None:
    for host, place in (("n1:9010", "n1"), ("[2001:db8::1]:9010", "[2001:db8::1]"), ("192.0.2.1", "192.0.2.1")):
        answer = (await ask(port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).decode()
        assert answer.startswith("HTTP/1.1 307 ") and f"\r\nLocation: https://{place}:9453/\r\n" in answer


@pytest.mark.parametrize("host", ["", "a/b", "a b", "evil.example/@n1", "n1:9010:1", "n1\tx"])
async def test_what_is_no_name_of_a_machine_is_sent_nowhere(port: int, host: str) -> None:
    answer = await ask(port, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ") and b"Location" not in answer


async def test_a_head_has_no_body_and_an_answer_is_not_kept(node: SmallNode, port: int) -> None:
    node.move("web", StateInfo("UP", "Ready", NOW))
    head = await ask(port, b"HEAD /var/modules/web/ready.txt HTTP/1.0\r\n\r\n")
    whole = await ask(port, b"GET /var/modules/web/ready.txt HTTP/1.0\r\n\r\n")
    assert whole == head + b"OK\n"
    assert b"Cache-Control: no-store" in head and head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("request_", [b"POST / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"GET " + b"x" * 20_000 + b"\r\n\r\n"])
async def test_what_is_no_such_request_is_refused(port: int, request_: bytes) -> None:
    assert (await ask(port, request_)).split()[1] == b"400"


async def test_a_port_that_somebody_has_harms_nobody(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probe, "AGAIN_S", 0.01)
    node.move("web", StateInfo("UP", "Ready", NOW))
    other = socket.create_server(("0.0.0.0", 0))
    number = int(other.getsockname()[1])
    async with probe.answering(node, number):
        while not caplog.records:
            await asyncio.sleep(0.01)
        other.close()
        assert await status(number) == 200
    assert len(caplog.records) == 1
