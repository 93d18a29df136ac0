"""Tells the neighbours who holds a virtual address: gratuitous ARP, unsolicited neighbour advertisements.

Frames are built here (pure) and sent through a packet socket, so that the kernel needs no address of its own to answer
with. Each announcement is sent at once, again after 1, 2 and 4 s (a switch that just changed its topology drops the
first), then at the period that `arpreroute` asks for (spec §3.5; IPv4 only).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from safekit.vip.service import ArpReroute, Placement

Announced = tuple[Placement, ArpReroute | None]
REPEATS_AT_S = (1.0, 2.0, 4.0)
_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ARP, _IPV6 = 0x0806, 0x86DD
_REQUEST, _REPLY = 1, 2
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x20000000


def frames(placement: Placement) -> tuple[bytes, ...]:
    """The frames that announce one address: two forms of ARP (some hosts heed only one), or one advertisement.

    A virtual Ethernet address is told in them, and never sends them.
    """
    mac, claimed = (bytes.fromhex(one.replace(":", "")) for one in (placement.mac, placement.claimed))
    address = placement.address
    if isinstance(address, IPv4Address):
        return tuple(_gratuitous_arp(mac, claimed, address, operation) for operation in (_REQUEST, _REPLY))
    return (_unsolicited_advertisement(mac, claimed, address),)


def _gratuitous_arp(mac: bytes, claimed: bytes, address: IPv4Address, operation: int) -> bytes:
    target = _BROADCAST if operation == _REPLY else bytes(6)
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
    return _BROADCAST + mac + struct.pack(">H", _ARP) + head + claimed + address.packed + target + address.packed


def _unsolicited_advertisement(mac: bytes, claimed: bytes, address: IPv6Address) -> bytes:
    option = b"\x02\x01" + claimed  # target link-layer address, one unit of 8 bytes
    body = struct.pack(">BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE) + address.packed + option
    pseudo = address.packed + _ALL_NODES.packed + struct.pack(">IHBB", len(body), 0, 0, socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack(">H", _checksum(pseudo + body)) + body[4:]
    ip = struct.pack(">IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return _ALL_NODES_MAC + mac + struct.pack(">H", _IPV6) + ip + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def announce(placements: Iterable[Placement]) -> int:
    """Send every frame once; returns how many went out. An interface that is down just now is left to the repeats."""
    sent = 0
    for placement in placements:
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as wire:
                wire.bind((placement.interface, 0))
                for frame in frames(placement):
                    wire.send(frame)
                    sent += 1
        except OSError:
            continue
    return sent


def moments(reroute: ArpReroute | None) -> Iterator[float]:
    """Seconds after the first announcement at which an address is announced again."""
    yield from REPEATS_AT_S
    if reroute is not None:
        count = 1
        while count * reroute.interval_s <= reroute.elapse_s:
            if count * reroute.interval_s > REPEATS_AT_S[-1]:
                yield count * reroute.interval_s
            count += 1


class Announcements:
    """What one module announces now. When `end` has returned nothing more is sent: the next holder may speak.

    `begin` and `end` are called in threads, `repeat` in the event loop; the lock is held for one frame at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: tuple[Announced, ...] = ()

    def begin(self, announced: Iterable[Announced]) -> None:
        """Announce these, and from now on only these."""
        with self._lock:
            self._current = tuple(announced)
            announce([placement for placement, _ in self._current])

    def end(self) -> None:
        """Fall silent."""
        with self._lock:
            self._current = ()

    async def repeat(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Repeat what is announced now; returns after the last repeat, or as soon as something else is announced."""
        current = self._current
        due = sorted((moment, number) for number, one in enumerate(current) for moment in _moments(*one))
        now = 0.0
        for moment, number in due:
            if moment > now:
                await sleep(moment - now)
                now = moment
            with self._lock:
                if self._current is not current:
                    return
                announce([current[number][0]])


def _moments(placement: Placement, reroute: ArpReroute | None) -> Iterator[float]:
    return moments(reroute if placement.address.version == 4 else None)
