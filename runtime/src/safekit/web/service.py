"""The process `safekit-web`: listens with TLS on TCP port 9453 of every address, as an account that owns nothing.

Of uvicorn only the HTTP protocol is used, as in `safekit.api.server`. Connections are few, and none is kept that does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from safekit.afar import PORT
from safekit.paths import Paths
from safekit.web.accounts import Accounts
from safekit.web.app import Web
from safekit.web.board import Cluster
from safekit.web.local import Local
from safekit.web.proof import fingerprint, first_certificate

MOST_CONNECTIONS = 128
_HANDSHAKE_S = 10.0
_IDLE_S = 15
_STOP_S = 3.0


@contextlib.asynccontextmanager
async def serving(paths: Paths, port: int = PORT, host: str | None = None) -> AsyncIterator[int]:
    """Serve while the block runs; the port. OSError, ssl.SSLError, ValueError if certificate or port cannot be used."""
    certificate, private_key = paths.web_certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, private_key)
    shown = fingerprint(first_certificate(certificate.read_text()))
    local = Local(paths.web_socket, time.monotonic)
    web = Web(Accounts(paths.web), local, Cluster(local, time.monotonic, port), shown, time.monotonic)
    config = Config(
        web.app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
    )
    loop, state = asyncio.get_running_loop(), ServerState()
    answers = functools.partial(_Protocol, config, state, {}, loop)
    server = await loop.create_server(answers, host, port, ssl=context, ssl_handshake_timeout=_HANDSHAKE_S, backlog=64)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=_STOP_S)
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()


class _Protocol(H11Protocol):
    """HTTP that closes a connection on which no request came, or went on coming, for a while."""

    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client."""
        super().connection_made(transport)
        self._looking = self.loop.call_later(_IDLE_S, self._look, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """It left."""
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look(self, last: Any) -> None:
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or (cycle is last and cycle.response_complete):
            self.transport.close()
            return
        self._looking = self.loop.call_later(_IDLE_S, self._look, cycle)


async def _run(paths: Paths) -> None:
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    async with serving(paths):
        gc.collect()
        gc.freeze()
        _ready()
        await ending.wait()


def _ready() -> None:
    """Tell systemd (sd_notify(3))."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
            notice.connect("\0" + address[1:] if address.startswith("@") else address)
            notice.sendall(b"READY=1")


def main() -> None:
    """`python -m safekit.web`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    os.umask(0o077)
    try:
        asyncio.run(_run(Paths()))
    except (OSError, ValueError) as trouble:
        sys.exit(f"safekit-web: {trouble}")
