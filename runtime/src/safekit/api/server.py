"""Listens on the unix socket for the API, in the loop of the daemon.

Of uvicorn only the HTTP protocol is used, not its server: that one would take the daemon's signals and wake up ten
times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import grp
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from safekit.afar import USER
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

    On entry the socket listens (mode 0600; 0660 for the group `safekit` if there is one), and that of the web service,
    which answers only what may be asked from afar. On exit long polls are ended and running requests get 5 s. `commands` is
    open and stays the caller's. OSError if another daemon listens there.
    """
    loop = asyncio.get_running_loop()
    api = Api(face, commands)
    state = ServerState()
    listeners = [_listen(paths.api_socket), _listen_for_web(paths.web_socket)]
    inodes = {path: path.stat().st_ino for path in (paths.api_socket, paths.web_socket)}
    servers = []
    apps: tuple[Callable[..., Any], ...] = (api.app, api.from_afar)
    for listener, app in zip(listeners, apps, strict=True):
        config = Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
        )
        answers = functools.partial(_Protocol, config, state, {}, loop)
        servers.append(await loop.create_unix_server(answers, sock=listener, backlog=128))
    try:
        yield
    finally:
        for server in servers:
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
        for path, inode in inodes.items():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()


class _Protocol(H11Protocol):
    """HTTP over a unix socket. The client of a request is (uid, pid) of the peer, as the kernel knows it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = cast(socket.socket, transport.get_extra_info("socket"))
        pid, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        self.client = (str(uid), pid)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = _bind(path)
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


def _listen_for_web(path: Path) -> socket.socket:
    """Open to the account of the web service, once it exists; until then to root alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = _bind(path)
    try:
        group = pwd.getpwnam(USER).pw_gid
    except KeyError:
        return listener
    for place, mode in ((path, 0o660), (path.parent, 0o750)):
        os.chown(place, -1, group)
        place.chmod(mode)
    return listener


def _bind(path: Path) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(former)
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
