"""The link of an interface (spec §6.2): of the one that carries a virtual address, resource `intf.<network>`, and of the
one that carries an address that `<intf>` names, resource `intf.<ident>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from safekit.checkers.probing import Probe
from safekit.config import IntfCheck, Vip

PERIOD_S = 1.0


class Placement(Protocol):
    """Where the plan of the virtual addresses puts one of them."""

    @property
    def interface(self) -> str:
        """The interface's name."""

    @property
    def network(self) -> str:
        """The network's address, which names the resource."""


class Planned(Protocol):
    """The virtual addresses of a module."""

    def plan(self) -> Iterable[Placement]:
        """Where each address goes; raises VipError."""


def carrier(interface: str, root: Path = Path("/sys/class/net")) -> bool:
    """Whether the interface is there, up, and has a link."""
    try:
        return (root / interface / "carrier").read_text().strip() == "1"
    except OSError:
        return False  # missing, or administratively down: the file cannot be read


class InterfaceChecker:
    """Tests every interface that `check="on"` names, once a second; reading a file below /sys costs microseconds."""

    def __init__(self, vip: Vip, planned: Planned, report: Callable[[str, str, str], bool]) -> None:
        self._vip = vip
        self._planned = planned
        self._report = report
        self._known: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._known:
                self._known = await asyncio.to_thread(self._find)
            for network, interface in self._known.items():
                self._report(f"intf.{network}", "up" if carrier(interface) else "down", "intfcheck")
            await asyncio.sleep(PERIOD_S)

    def _find(self) -> dict[str, str]:
        """Network -> interface, for the interfaces to check. Empty as long as the addresses cannot be planned."""
        if not any(interface.check for interface in self._vip.interfaces):
            return {}
        return {placement.network: placement.interface for placement in self._planned.plan()}


def interface_probe(check: IntfCheck, carrying: Callable[[str], str | None]) -> Probe:
    """The probe of one `<intf>`. `carrying` names the interface that has an address, None when no interface has it.

    An interface that loses its address with its link, as some do for IPv6, is remembered: it is down.
    """
    known: list[str] = []

    def linked() -> bool:
        found = carrying(str(check.local_addr))
        if found is not None:
            known[:] = [found]
        return bool(known) and carrier(known[0])

    return Probe(f"intf.{check.ident}", "intfcheck", PERIOD_S, lambda: asyncio.to_thread(linked))
