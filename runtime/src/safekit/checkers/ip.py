"""A virtual address that must be on this node: resource `ip.<addr>` (spec §6.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from safekit.config import Vip

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
