"""An address that must be on this node (spec §6.2): a virtual one of the module, resource `ip.<addr>`, and what `<ip>`
names, resource `ip.<ident>`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from safekit.checkers.probing import Probe
from safekit.config import IpCheck, Vip

PERIOD_S = 10.0


class Holding(Protocol):
    """The virtual addresses of a module."""

    def held(self) -> bool:
        """Whether all are here and ours."""


class AddressChecker:
    """Tests the addresses with `check="on"` every ten seconds."""

    def __init__(self, vip: Vip, holding: Holding, report: Callable[[str, str, str], bool]) -> None:
        self._addresses = [str(address.addr) for address in vip.addresses if address.check]
        self._holding = holding
        self._report = report

    async def run(self) -> None:
        """Until cancelled."""
        while self._addresses:
            value = "up" if await asyncio.to_thread(self._holding.held) else "down"
            for address in self._addresses:
                self._report(f"ip.{address}", value, "ipcheck")
            await asyncio.sleep(PERIOD_S)


def address_probe(check: IpCheck, carrying: Callable[[str], str | None]) -> Probe:
    """The probe of one `<ip>`. `carrying` names the interface that has an address, None when no interface has it."""
    wanted = str(check.addr)

    def here() -> bool:
        try:
            found = socket.getaddrinfo(wanted, None, type=socket.SOCK_DGRAM)
        except OSError:
            return False  # a name that means nothing is on no node
        return any(carrying(str(address[0])) is not None for *_, address in found)

    return Probe(f"ip.{check.ident}", "ipcheck", check.interval.total_seconds(), lambda: asyncio.to_thread(here))
