"""The virtual addresses of a mirror: on the primary, announced; gone from everywhere else (spec §3.5 `real_interface`,
§4.2).
"""

from __future__ import annotations

from pathlib import Path

from safekit.vip import sockets
from safekit.vip.addresses import Addresses
from safekit.vip.announce import Announcements
from safekit.vip.service import Placement, Released, VirtualAddress


class MirrorVip:
    """Takes and releases the addresses of one mirror module. Every method may be repeated; a new object continues an
    old one's work.
    """

    def __init__(self, module: str, addresses: tuple[VirtualAddress, ...], run: Path) -> None:
        self.module = module
        self._wanted = addresses
        self._addresses = Addresses(run)
        self._announcements = Announcements()

    def plan(self) -> tuple[Placement, ...]:
        """Where each address goes. VipError if one cannot be placed or belongs to another. Touches nothing."""
        return self._addresses.place(self._wanted)

    def places(self) -> tuple[tuple[str, int], ...]:
        """Each address and the index of its interface, as `plan`."""
        return tuple((str(placement.address), placement.index) for placement in self.plan())

    def take(self) -> None:
        """Hold every address and announce it once; all or none."""
        placements = self.plan()
        self._addresses.add(placements)
        reroutes = {one.address: one.reroute for one in self._wanted}
        self._announcements.begin((placement, reroutes[placement.address]) for placement in placements)

    def held(self) -> bool:
        """True if every address is on this node and ours."""
        return self._addresses.held(self._wanted)

    def release(self, tcpreset: bool) -> Released:
        """Reset the connections if asked, then remove what this module set, also under an earlier configuration."""
        self._announcements.end()
        mine = sorted({one.address for one in self._wanted} | self._addresses.recorded(), key=str)
        held = [address for address in mine if self._addresses.has(address)]
        count, note = sockets.reset_connections(held) if tcpreset else (0, "")
        removed = self._addresses.remove(mine)
        return Released(tuple(map(str, removed)), count, note)

    async def keep_announcing(self) -> None:
        """Repeat the announcement, then as `arpreroute` asks; ends by itself, at a release, or when cancelled."""
        await self._announcements.repeat()
