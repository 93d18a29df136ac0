"""Takes host addresses off this node at once: what the pulse itself does when a lease ran out.

Nothing is waited for and nothing is loaded: one rtnetlink(7) message for each, whose answer nobody reads. An address that
is not there is no trouble.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address

Held = tuple[str, int]
"""A host address, and the index of the interface that it is on."""

_DELADDR, _REQUEST = 21, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


def release(addresses: Iterable[Held]) -> None:
    """Remove these; raises nothing."""
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as kernel:
        for number, held in enumerate(addresses, 1):
            with suppress(OSError):
                kernel.send(_message(number, *held))


def _message(number: int, text: str, index: int) -> bytes:
    address = ip_address(text)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, address.max_prefixlen, 0, 0, index)
    for kind in (_IFA_LOCAL, _IFA_ADDRESS):
        body += struct.pack("=HH", 4 + len(address.packed), kind) + address.packed
    return struct.pack("=IHHII", 16 + len(body), _DELADDR, _REQUEST, number, 0) + body
