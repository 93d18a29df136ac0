"""Virtual addresses on this node's interfaces: where one belongs, whether it is here, and adding and removing it.

Invariant: an address that was here before us is never touched. Ours are told from others' by the protocol mark that the
kernel keeps with the address and by the module's record (`addresses.json` in its run directory, written before the
first address is added): the mark where the kernel knows it (5.18 and later), the record elsewhere. Both survive a crash
of the daemon, neither survives a power-off, like the addresses.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Sequence
from ipaddress import ip_interface
from pathlib import Path

from safekit.vip import netlink
from safekit.vip.netlink import Link, LocalAddress
from safekit.vip.service import IPAddress, Placement, VipError, VirtualAddress

RECORD = "addresses.json"


def local_mac(interface: str) -> str:
    """The Ethernet address of an interface of this node, e.g. `02:00:00:00:00:01`."""
    for link in netlink.links():
        if link.name == interface:
            if not link.mac:
                raise VipError("vip.interface", f"interface {interface} has no Ethernet address", interface=interface)
            return link.mac
    raise VipError("vip.interface", f"this node has no interface {interface}", interface=interface)


def place(
    wanted: Iterable[VirtualAddress],
    links: Sequence[Link],
    present: Sequence[LocalAddress],
    virtual: Iterable[IPAddress] = (),
) -> tuple[Placement, ...]:
    """Choose the interface of each address: the narrowest network that contains it (spec §3.5 `name`, `netmask`). Pure.

    `virtual`: addresses that are virtual themselves and give no network.
    """
    asked = tuple(wanted)
    not_networks = {one.address for one in asked} | set(virtual)
    by_index = {link.index: link for link in links}
    chosen = []
    for one in asked:
        candidates = [
            (entry, by_index[entry.index])
            for entry in present
            if entry.index in by_index
            and _gives_network(entry, by_index[entry.index], not_networks)
            and entry.address.version == one.address.version
        ]
        if one.interface is not None:
            _check_interface(one.interface, links)
            candidates = [(entry, link) for entry, link in candidates if link.name == one.interface]
        fitting = [
            (entry, link)
            for entry, link in candidates
            if one.address in ip_interface((entry.address, entry.prefix_length)).network
            and (one.prefix_length is None or one.prefix_length == entry.prefix_length)
        ]
        if not fitting:
            raise _outside(one, candidates)
        entry, link = min(fitting, key=lambda pair: (-pair[0].prefix_length, pair[1].index))
        network = str(ip_interface((entry.address, entry.prefix_length)).network.network_address)
        chosen.append(Placement(one.address, link.name, link.index, link.mac, entry.address, network, one.vmac))
    return tuple(chosen)


def _gives_network(entry: LocalAddress, link: Link, virtual: set[IPAddress]) -> bool:
    if not link.up or link.loopback or not link.mac or entry.ours or entry.address in virtual:
        return False
    return entry.prefix_length < entry.address.max_prefixlen


def _check_interface(name: str, links: Sequence[Link]) -> None:
    for link in links:
        if link.name == name:
            if not link.mac:
                raise VipError("vip.interface", f"interface {name} has no Ethernet address", interface=name)
            if not link.up:
                raise VipError("vip.interface", f"interface {name} is down", interface=name)
            return
    known = ", ".join(link.name for link in links if not link.loopback)
    raise VipError("vip.interface", f"this node has no interface {name} (it has {known or 'none'})", interface=name)


def _outside(one: VirtualAddress, candidates: Sequence[tuple[LocalAddress, Link]]) -> VipError:
    networks = ", ".join(f"{link.name} {entry.address}/{entry.prefix_length}" for entry, link in candidates)
    where = f"no network of interface {one.interface}" if one.interface else "no network of this node"
    mask = f" with a mask of {one.prefix_length} bits" if one.prefix_length is not None else ""
    listed = networks or f"it has no IPv{one.address.version} network"
    advice = "give it an address of one of these networks" if networks else "give the interface an address first"
    message = f"VIP {one.address} is in {where}{mask} ({listed}): {advice}"
    return VipError("vip.network", message, address=str(one.address), networks=networks, interface=one.interface or "")


class Addresses:
    """The virtual addresses of one module: adds and removes them, and knows which are its own."""

    def __init__(self, run: Path) -> None:
        self._record = run / RECORD

    def place(self, wanted: Iterable[VirtualAddress]) -> tuple[Placement, ...]:
        """Where each address goes; VipError if one cannot be placed, or is here and is not ours."""
        present = netlink.addresses()
        owned = self.recorded()
        placements = place(wanted, netlink.links(), present, owned)
        for placement in placements:
            for entry in present:
                if entry.address == placement.address and not self._is_ours(entry, owned):
                    name = next((link.name for link in netlink.links() if link.index == entry.index), str(entry.index))
                    message = f"VIP {entry.address} is already an address of {name} and was not set by this module"
                    raise VipError("vip.foreign", message, address=str(entry.address), interface=name)
        return placements

    def held(self, wanted: Iterable[VirtualAddress]) -> bool:
        """True if every address is here and ours."""
        owned = self.recorded()
        here = {entry.address for entry in netlink.addresses() if self._is_ours(entry, owned)}
        return all(one.address in here for one in wanted)

    def has(self, address: IPAddress) -> bool:
        """True if this address is here and ours."""
        owned = self.recorded()
        return any(entry.address == address and self._is_ours(entry, owned) for entry in netlink.addresses())

    def add(self, placements: Iterable[Placement]) -> tuple[Placement, ...]:
        """Add what is missing; returns it. All or none: if one fails, those added by this call are removed again."""
        wanted = tuple(placements)
        present = {(entry.address, entry.index) for entry in netlink.addresses()}
        missing = [p for p in wanted if (p.address, p.index) not in present]
        before = self.recorded()
        self._write(before | {p.address for p in wanted})
        added: list[Placement] = []
        for placement in missing:
            try:
                netlink.add_address(placement.address, placement.index)
            except OSError as error:
                self.remove([p.address for p in added])
                self._write(before)
                message = (
                    f"the kernel refused to set VIP {placement.address} on {placement.interface}: {error.strerror}"
                )
                raise VipError(
                    "vip.kernel", message, address=str(placement.address), interface=placement.interface
                ) from error
            added.append(placement)
        return tuple(added)

    def remove(self, addresses: Iterable[IPAddress] | None = None) -> tuple[IPAddress, ...]:
        """Remove ours among `addresses` (None: every one in the record), on whatever interface they are. Returns those
        removed.
        """
        owned = self.recorded()
        wanted = owned if addresses is None else set(addresses)
        removed = []
        for entry in netlink.addresses():
            if entry.address in wanted and self._is_ours(entry, owned):
                try:
                    netlink.delete_address(entry.address, entry.index)
                except OSError as error:
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                        message = f"the kernel refused to remove VIP {entry.address}: {error.strerror}"
                        raise VipError("vip.kernel", message, address=str(entry.address)) from error
                removed.append(entry.address)
        self._write(owned - wanted)
        return tuple(removed)

    def recorded(self) -> set[IPAddress]:
        """The addresses that this module set, or was about to set, since the last power-off."""
        try:
            entries = json.loads(self._record.read_text())
        except FileNotFoundError:
            return set()
        return {ip_interface(entry).ip for entry in entries}

    def _is_ours(self, entry: LocalAddress, owned: set[IPAddress]) -> bool:
        """The kernel's mark decides where it is kept; the record elsewhere (host addresses only)."""
        return entry.ours or (entry.address in owned and entry.prefix_length == entry.address.max_prefixlen)

    def _write(self, owned: set[IPAddress]) -> None:
        if owned == self.recorded():
            return
        if not owned:
            self._record.unlink(missing_ok=True)
            return
        self._record.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._record.with_suffix(".tmp")
        temporary.write_text(json.dumps(sorted(map(str, owned))))
        temporary.replace(self._record)
