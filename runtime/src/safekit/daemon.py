"""The process `safekitd`: starts the node and its API, feeds the watchdog, ends without stopping an application."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys

from safekit.api.server import serve
from safekit.node.node import Node
from safekit.paths import Paths


def notify(message: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens when nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        notice.connect("\0" + address[1:] if address.startswith("@") else address)
        notice.sendall(message.encode())


async def _watchdog() -> None:
    """A loop that no longer turns is not alive: the sign of life comes from the loop itself, twice per interval."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while interval:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


async def run(paths: Paths) -> None:
    """Until SIGTERM or SIGINT."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    node = Node(paths)
    await node.open()
    try:
        async with serve(node, paths, node.commands):
            watchdog = asyncio.create_task(_watchdog())
            gc.collect()
            gc.freeze()
            notify("READY=1\nSTATUS=ready")
            await ending.wait()
            notify("STOPPING=1")
            watchdog.cancel()
    finally:
        await node.close()


def main() -> None:
    """The console script `safekitd`."""
    if os.geteuid() != 0:
        sys.exit("safekitd must run as root: it sets addresses and mounts directories")
    os.umask(0o077)
    asyncio.run(run(Paths()))
