"""A daemon as small as can be, to be killed: sets one heartbeat channel, publishes, says so, and waits.

python small_daemon.py SOCKET NODE ADDRESS PEER ADDRESS PORT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from safekit.membership import Pulse
from tests.pulse.nodes import mirror


async def main(socket_path: str, node: str, address: str, peer: str, peer_address: str, port: str) -> None:
    pulse = Pulse(Path(socket_path))
    await pulse.connect()
    await pulse.set_channel(mirror(node, peer, {node: address, peer: peer_address}, int(port)))
    await pulse.publish("mirror:db", {"state": "PRIM"})
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
