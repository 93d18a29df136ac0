"""A TCP service that must accept connections: resource `tcp.<ident>` (spec §6.2)."""

from __future__ import annotations

import asyncio

from safekit.checkers.probing import Probe
from safekit.config import TcpCheck


async def accepts(host: str, port: int, timeout: float) -> bool:
    """Whether a connection to `host` is accepted within `timeout` seconds.

    The connection is reset at once: a closed one would stay in TIME_WAIT, one every interval. (`asyncio.wait_for` would
    forget that the checker was ended, if the connection is accepted at that moment: Python before 3.12.)
    """
    try:
        async with asyncio.timeout(timeout):
            _reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


def tcp_probe(check: TcpCheck) -> Probe:
    """The probe of one `<tcp>`."""
    timeout = check.timeout.total_seconds()
    return Probe(
        f"tcp.{check.ident}",
        "tcpcheck",
        check.interval.total_seconds(),
        lambda: accepts(str(check.addr), check.port, timeout),
    )
