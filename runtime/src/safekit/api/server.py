"""Listens on the unix socket for the API, in the loop of the daemon.

Of uvicorn only the HTTP protocol is used, not its server: that one would take the daemon's signals and wake up ten
times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from safekit.api.app import Api
from safekit.api.face import NodeFace
from safekit.paths import Paths
from safekit.store.command_log import CommandLog

GROUP = "safekit"
_STOP_S = 5.0
_PEER = struct.Struct("3i")


@contextlib.asynccontextmanager
async def serve(face: NodeFace, paths: Paths, commands: CommandLog) -> AsyncIterator[None]:
    """Serve the API while the block runs.

    On entry the socket listens (mode 0600; 0660 for the group `safekit` if there is one). On exit long polls are
    ended and running requests get 5 s. `commands` is open and stays the caller's. OSError if another daemon listens
    there.
    """
    loop = asyncio.get_running_loop()
    api = Api(face, commands)
    config = Config(
        api.app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )
    state = ServerState()
    listener = _listen(paths.api_socket)
    inode = paths.api_socket.stat().st_ino
    server = await loop.create_unix_server(lambda: _Protocol(config, state, {}, loop), sock=listener, backlog=128)
    try:
        yield
    finally:
        server.close()
        api.stop()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=_STOP_S)
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()
        with contextlib.suppress(FileNotFoundError):
            if paths.api_socket.stat().st_ino == inode:
                paths.api_socket.unlink()


class _Protocol(H11Protocol):
    """HTTP over a unix socket. The client of a request is (uid, pid) of the peer, as the kernel knows it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = cast(socket.socket, transport.get_extra_info("socket"))
        pid, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        self.client = (str(uid), pid)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(former)
    try:
        group = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return listener
    os.chown(path, -1, group)
    path.chmod(0o660)
    if not path.parent.stat().st_mode & 0o001:
        os.chown(path.parent, -1, group)
        path.parent.chmod(0o750)
    return listener


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(f"{path}: another safekitd listens there")
