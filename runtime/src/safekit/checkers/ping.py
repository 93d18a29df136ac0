"""A machine that must answer: resource `ping.<ident>` (spec §6.2). ICMP echo, IPv4 and IPv6, on a raw socket.

Who answers is told by a random identifier and number in the request: replies to other programs' requests on this machine,
which a raw socket hears as well, are passed over.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct

from safekit.checkers.probing import Probe
from safekit.config import PingCheck

_HEADER = struct.Struct("!BBHHH")
_ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_PAYLOAD = 16
AGAIN_S = 1.0


def checksum(message: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(family: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    """The request. For IPv6 the kernel fills in the checksum, which covers addresses that only it knows."""
    kind = _ECHO[socket.AddressFamily(family)][0]
    message = _HEADER.pack(kind, 0, 0, identifier, sequence) + payload
    if family == socket.AF_INET6:
        return message
    return _HEADER.pack(kind, 0, checksum(message), identifier, sequence) + payload


def is_reply(family: int, packet: bytes, identifier: int, payload: bytes) -> bool:
    """Whether `packet`, as a raw socket receives it, answers a request of this identifier."""
    if family == socket.AF_INET:  # with its IP header
        packet = packet[(packet[0] & 15) * 4 :] if packet else packet
    if len(packet) < _HEADER.size:
        return False
    kind, _code, _checksum, found, _sequence = _HEADER.unpack_from(packet)
    return (kind, found) == (_ECHO[socket.AddressFamily(family)][1], identifier) and packet[_HEADER.size :] == payload


async def answers(host: str, timeout: float) -> bool:
    """Whether `host` answers an echo request within `timeout` seconds. A lost packet is sent again after a second."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_RAW)
            family, _type, _protocol, _name, address = found[0]
            with socket.socket(family, socket.SOCK_RAW, _PROTOCOL[socket.AddressFamily(family)]) as link:
                link.setblocking(False)
                return await _exchange(link, address)
    except (OSError, TimeoutError):
        return False


async def _exchange(link: socket.socket, address: tuple[object, ...]) -> bool:
    loop = asyncio.get_running_loop()
    identifier, payload = secrets.randbelow(0x10000), secrets.token_bytes(_PAYLOAD)
    sequence = 0
    while True:
        await loop.sock_sendto(link, echo_request(link.family, identifier, sequence, payload), address)
        sequence += 1
        try:
            async with asyncio.timeout(AGAIN_S):
                while not is_reply(link.family, await loop.sock_recv(link, 2048), identifier, payload):
                    pass
                return True
        except TimeoutError:
            continue


def ping_probe(check: PingCheck) -> Probe:
    """The probe of one `<ping>`."""
    timeout = check.timeout.total_seconds()
    return Probe(
        f"ping.{check.ident}", "pingcheck", check.interval.total_seconds(), lambda: answers(str(check.addr), timeout)
    )
