"""Counts the connections of the virtual addresses with `connections="on"` (spec §3.5), resource `connections.<addr>`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from safekit.config import Address

PERIOD_S = 10.0


async def count_connections(addresses: Sequence[Address], report: Callable[[str, str], object]) -> None:
    """Until cancelled: every ten seconds the number of established connections that end on this node, `unknown` where the
    kernel does not say.
    """
    while True:
        for address in addresses:
            report(f"connections.{address}", await asyncio.to_thread(_counted, address))
        await asyncio.sleep(PERIOD_S)


def _counted(address: Address) -> str:
    from safekit.vip import sockets
    from safekit.vip.from_config import resolved
    from safekit.vip.service import VipError

    try:
        return str(len(sockets.flows((resolved(address),), established=True)))
    except (OSError, VipError):
        return "unknown"
