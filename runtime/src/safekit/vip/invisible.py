"""`vmac_invisible` (spec §5.4): a virtual address answers with an Ethernet address that no frame ever has as its source.

No switch learns where it is, so each floods what is sent there, and every node sees every frame and keeps its own
(`ruleset.py`). Pure, but for `Heard`:

    what a node says   ARP answers and advertisements carry the virtual Ethernet address inside, the node's own outside
    what it hears      a frame to the virtual address counts as one to the node itself before anything else looks at it;
                       what is not for a virtual address of the module ends there
    what its card does a card passes only what it was told to: the virtual address is added to its filter, which is no
                       promiscuous mode. A macvlan takes no second address; it takes a multicast one (attribute `addr`)

The kernel's advertisement (NA) has a checksum that covers the Ethernet address in it, and nftables updates a checksum
only for fields whose name it knows. The source address is such a field, and it is known: it is the VIP. So it is set to
a neighbour of the VIP that differs from it by as much as the two Ethernet addresses differ, which mends the checksum,
and then back, both as bytes that nftables does not understand.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from ipaddress import IPv6Address
from pathlib import Path

from safekit.vip import netlink
from safekit.vip.service import IPAddress, Placement, VipError

RECORD = "macs.json"
_TARGET_OPTION = "@th,192,16 0x0201"
_TARGET_MAC = "@th,208,48"


def derived_mac(first: IPAddress) -> str:
    """The Ethernet address of an interface whose configuration names none: `5a:fe` and the last four bytes of its first
    virtual address (spec §3.5).
    """
    return "5a:fe:" + first.packed[-4:].hex(":")


def virtual_macs(placements: Iterable[Placement]) -> tuple[str, ...]:
    """Each virtual Ethernet address once, in order."""
    return tuple(sorted({p.vmac for p in placements if p.vmac}))


def to_any(placements: Iterable[Placement]) -> str:
    """The condition that a frame goes to one of the virtual Ethernet addresses; empty if there is none."""
    macs = virtual_macs(placements)
    return f"ether daddr {{ {', '.join(macs)} }}" if macs else ""


def made_own(placement: Placement) -> str:
    """What makes a frame to a virtual Ethernet address one to this node: nothing that goes back may carry it as source."""
    return f"ether daddr set {placement.mac} meta pkttype set host"


def spoken4(placement: Placement) -> str:
    """The rule of the ARP output chain that puts the virtual Ethernet address into answers."""
    said = f'oifname "{placement.interface}" arp operation reply arp saddr ip {placement.address}'
    return f"{said} arp saddr ether set {placement.vmac}"


def spoken6(placement: Placement) -> str:
    """The rule of the IPv6 output chain that puts it into advertisements."""
    vip = IPv6Address(placement.address)
    own, virtual = (_hex(mac) for mac in (placement.mac, placement.vmac))
    said = f'oifname "{placement.interface}" icmpv6 type nd-neighbor-advert ip6 saddr {vip} {_TARGET_OPTION}'
    mended = f"ip6 saddr set {mending(vip, placement.mac, placement.vmac)} @nh,64,128 set {int(vip):#034x}"
    return f"{said} {_TARGET_MAC} {own} {mended} {_TARGET_MAC} set {virtual}"


def mending(address: IPv6Address, was: str, becomes: str) -> IPv6Address:
    """The neighbour of an address that weighs as much more in a checksum as one Ethernet address more than another."""
    more = (_sum(bytes.fromhex(becomes.replace(":", ""))) - _sum(bytes.fromhex(was.replace(":", "")))) % 0xFFFF
    words = address.packed
    last = (int.from_bytes(words[14:], "big") + more) % 0xFFFF
    return IPv6Address(words[:14] + last.to_bytes(2, "big"))


def _sum(data: bytes) -> int:
    return sum(int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data), 2))


def _hex(mac: str) -> str:
    return "0x" + mac.replace(":", "")


class Heard:
    """The virtual Ethernet addresses that this module added to the filters of network cards; kept below /run."""

    def __init__(self, run: Path) -> None:
        self._record = run / RECORD

    def hear(self, placements: Iterable[Placement]) -> bool:
        """Be sent what goes to the virtual Ethernet addresses of these, and no longer to those of before; True if a
        filter was changed. VipError if a card takes no second address.
        """
        wanted = {(p.interface, p.vmac): p.index for p in placements if p.vmac}
        before = self._recorded()
        self._write(before | set(wanted))
        changed = False
        for (interface, mac), index in wanted.items():
            try:
                changed = netlink.hear(mac, index) or changed
            except OSError as error:
                self._write(before)
                message = f"interface {interface} cannot be told to receive what goes to {mac}: {error.strerror}"
                if error.errno == errno.EOPNOTSUPP:
                    message += "; a macvlan takes a multicast address instead (attribute addr of <virtual_interface>)"
                raise VipError("vip.interface", message, interface=interface) from error
        return self._forget(before - set(wanted), set(wanted)) or changed

    def end(self) -> None:
        """Take all of them out again."""
        self._forget(self._recorded(), set())

    def _forget(self, gone: Iterable[tuple[str, str]], stays: set[tuple[str, str]]) -> bool:
        index = {link.name: link.index for link in netlink.links()}
        forgotten = False
        for interface, mac in gone:
            if interface in index:
                forgotten = netlink.hear_no_longer(mac, index[interface]) or forgotten
        self._write(stays)
        return forgotten

    def _recorded(self) -> set[tuple[str, str]]:
        try:
            return {(interface, mac) for interface, mac in json.loads(self._record.read_text())}
        except FileNotFoundError:
            return set()

    def _write(self, heard: set[tuple[str, str]]) -> None:
        if heard == self._recorded():
            return
        if not heard:
            self._record.unlink(missing_ok=True)
            return
        self._record.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._record.with_suffix(".tmp")
        temporary.write_text(json.dumps(sorted(heard)))
        temporary.replace(self._record)
