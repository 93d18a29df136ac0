"""The process `safekitd`: starts the node and its API, feeds the watchdog, ends without stopping an application."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys

from safekit.api.probe import answering
from safekit.api.server import serve
from safekit.node.node import Node
from safekit.paths import Paths


class ServiceManager:
    """systemd, as sd_notify(3) knows it; says nothing when nobody listens.

    Its variables are taken out of the environment: a script or a command that the daemon starts must not speak for it.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        self._watchdog_s = int(os.environ.pop("WATCHDOG_USEC", "0")) / 2e6

    def tell(self, message: str) -> None:
        """Send a state, for example `READY=1`."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
            notice.connect(address)
            notice.sendall(message.encode())

    async def watchdog(self) -> None:
        """A loop that no longer turns is not alive: the sign of life comes from the loop itself, twice per interval."""
        while self._watchdog_s:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s)


async def run(paths: Paths) -> None:
    """Until SIGTERM or SIGINT."""
    manager = ServiceManager()
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    node = Node(paths)
    await node.open()
    try:
        async with serve(node, paths, node.commands), answering(node):
            watchdog = asyncio.create_task(manager.watchdog())
            gc.collect()
            gc.freeze()
            manager.tell("READY=1\nSTATUS=ready")
            await ending.wait()
            manager.tell("STOPPING=1")
            watchdog.cancel()
    finally:
        await node.close()


def main() -> None:
    """The console script `safekitd`."""
    if os.geteuid() != 0:
        sys.exit("safekitd must run as root: it sets addresses and mounts directories")
    os.umask(0o077)
    asyncio.run(run(Paths()))
