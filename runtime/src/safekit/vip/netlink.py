"""The few words of netlink that this room speaks: interfaces, addresses, connections, counters of nftables.

Written on the standard library: a general netlink package costs the daemon more resident memory than all other code of
this room. Structures: rtnetlink(7), sock_diag(7). Every call opens its socket, asks, and closes it, within `TIMEOUT_S`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from safekit.vip.service import Flow, IPAddress

TIMEOUT_S = 5.0
OUR_PROTOCOL = 0x5A
"""The origin that we give to an address (IFA_PROTO, kernel 5.18 and later), as `ip address show` prints it: `proto
0x5a`.
"""

_NETLINK_ROUTE, _NETLINK_SOCK_DIAG, _NETLINK_NETFILTER = 0, 4, 12
_REQUEST, _ACK, _ROOT_DUMP, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x300, 0x400, 0x200
_ERROR, _DONE = 2, 3
_NEWNEIGH, _DELNEIGH = 28, 29
_NEWLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR = 16, 18, 20, 21, 22
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NFT_NEWOBJ, _NFT_GETOBJ = 10 << 8 | 18, 10 << 8 | 19
_NFPROTO_NETDEV, _NFT_OBJECT_COUNTER = 5, 1
_NFTA_OBJ_TABLE, _NFTA_OBJ_NAME, _NFTA_OBJ_TYPE, _NFTA_OBJ_DATA, _NFTA_COUNTER_PACKETS = 1, 2, 3, 4, 2
_IFLA_ADDRESS, _IFLA_IFNAME = 1, 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS, _IFA_PROTO = 1, 2, 6, 8, 11
_IFA_F_NODAD, _IFA_F_DEPRECATED, _IFA_F_NOPREFIXROUTE, _IFA_F_MANAGETEMPADDR = 0x02, 0x20, 0x200, 0x100
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_AF_BRIDGE, _NUD_PERMANENT, _NTF_SELF, _NDA_LLADDR = 7, 0x80, 0x02, 2
_ARPHRD_ETHER = 1
_FOREVER = 0xFFFFFFFF
_TCP_ESTABLISHED, _TCP_LISTEN = 1, 10
_ALL_STATES = 0xFFF
_MAPPED = b"\0" * 10 + b"\xff\xff"


@dataclass(frozen=True)
class Link:
    """A network interface; `mac` is empty if it is no Ethernet."""

    index: int
    name: str
    mac: str
    up: bool
    loopback: bool


@dataclass(frozen=True)
class LocalAddress:
    """An address of this node; `ours`: it carries our protocol mark."""

    address: IPAddress
    prefix_length: int
    index: int
    ours: bool


@dataclass(frozen=True)
class Connection:
    """A TCP connection of this node; `identity` is the kernel's key for it (an inet_diag_sockid)."""

    flow: Flow
    family: int
    identity: bytes


def links() -> list[Link]:
    """All network interfaces."""
    found = []
    for kind, body in _exchange(_NETLINK_ROUTE, _GETLINK, _ROOT_DUMP, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
        if kind == _NEWLINK:
            _, hardware, index, flags, _ = struct.unpack_from("=BxHiII", body)
            facts = dict(_attributes(body, 16))
            name = facts[_IFLA_IFNAME].rstrip(b"\0").decode()
            mac = facts.get(_IFLA_ADDRESS, b"").hex(":") if hardware == _ARPHRD_ETHER else ""
            found.append(Link(index, name, mac, bool(flags & _IFF_UP), bool(flags & _IFF_LOOPBACK)))
    return found


def addresses() -> list[LocalAddress]:
    """All IPv4 and IPv6 addresses, in the kernel's order."""
    found = []
    for kind, body in _exchange(_NETLINK_ROUTE, _GETADDR, _ROOT_DUMP, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        if kind == _NEWADDR:
            family, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
            facts = dict(_attributes(body, 8))
            packed = facts.get(_IFA_LOCAL) or facts.get(_IFA_ADDRESS)
            if family in (socket.AF_INET, socket.AF_INET6) and packed:
                found.append(
                    LocalAddress(ip_address(packed), prefix, index, facts.get(_IFA_PROTO) == bytes([OUR_PROTOCOL]))
                )
    return found


def add_address(address: IPAddress, index: int) -> None:
    """Add a host address that is never chosen as a source by itself and needs no duplicate detection. OSError if there
    already.
    """
    flags = _IFA_F_NODAD | _IFA_F_NOPREFIXROUTE
    body = _address_body(address, index) + _attribute(_IFA_CACHEINFO, struct.pack("=IIII", 0, _FOREVER, 0, 0))
    body += _attribute(_IFA_FLAGS, struct.pack("=I", flags)) + _attribute(_IFA_PROTO, bytes([OUR_PROTOCOL]))
    _exchange(_NETLINK_ROUTE, _NEWADDR, _ACK | _CREATE | _EXCLUSIVE, body)


def delete_address(address: IPAddress, index: int) -> None:
    """Remove a host address. OSError if it is not there."""
    _exchange(_NETLINK_ROUTE, _DELADDR, _ACK, _address_body(address, index))


def hear(mac: str, index: int) -> bool:
    """Have an interface receive frames to one more Ethernet address; False if it does already. OSError if it cannot."""
    try:
        _exchange(_NETLINK_ROUTE, _NEWNEIGH, _ACK | _CREATE | _EXCLUSIVE, _station(mac, index))
    except FileExistsError:
        return False
    return True


def hear_no_longer(mac: str, index: int) -> bool:
    """The opposite; False if it did not."""
    try:
        _exchange(_NETLINK_ROUTE, _DELNEIGH, _ACK, _station(mac, index))
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL, errno.EOPNOTSUPP):
            return False
        raise
    return True


def connections(address: IPAddress, established: bool = False) -> list[Connection]:
    """TCP connections whose local address is `address`, also those that a dual-stack socket of the application
    accepted. `established`: only those in this state; otherwise in every state but listening.
    """
    families = (socket.AF_INET, socket.AF_INET6) if address.version == 4 else (socket.AF_INET6,)
    wanted = {
        socket.AF_INET: address.packed,
        socket.AF_INET6: address.packed if address.version == 6 else _MAPPED + address.packed,
    }
    found = []
    for family in families:
        states = 1 << _TCP_ESTABLISHED if established else _ALL_STATES & ~(1 << _TCP_LISTEN)
        request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, states) + bytes(48)
        for kind, body in _exchange(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _ROOT_DUMP, request):
            if kind != _SOCK_DIAG_BY_FAMILY or body[0] != family:
                continue
            identity = body[4:52]
            port, client_port = struct.unpack_from(">HH", identity)
            size = 4 if family == socket.AF_INET else 16
            if identity[4 : 4 + size] == wanted[family]:
                client = _unmapped(identity[20 : 20 + size])
                found.append(Connection(Flow(client, client_port, address, port), family, identity))
    return found


def destroy(connection: Connection) -> None:
    """Abort a connection: its peer gets a reset, its application an error. OSError EOPNOTSUPP if the kernel cannot."""
    request = struct.pack("=BBBxI", connection.family, socket.IPPROTO_TCP, 0, _ALL_STATES) + connection.identity
    _exchange(_NETLINK_SOCK_DIAG, _SOCK_DESTROY, _ACK, request)


def counters(table: str) -> dict[str, int]:
    """Packets of each named counter of a netdev table; empty if there is no such table.

    Asked here and not of `nft`, which reads every element of every set before it prints one counter.
    """
    request = struct.pack("=BBH", _NFPROTO_NETDEV, 0, 0)
    request += _attribute(_NFTA_OBJ_TABLE, table.encode() + b"\0")
    request += _attribute(_NFTA_OBJ_TYPE, struct.pack(">I", _NFT_OBJECT_COUNTER))
    found = {}
    for kind, body in _exchange(_NETLINK_NETFILTER, _NFT_GETOBJ, _ROOT_DUMP, request):
        if kind == _NFT_NEWOBJ:
            facts = dict(_attributes(body, 4))
            data = dict(_attributes(facts[_NFTA_OBJ_DATA], 0))
            name = facts[_NFTA_OBJ_NAME].rstrip(b"\0").decode()
            found[name] = int.from_bytes(data[_NFTA_COUNTER_PACKETS], "big")
    return found


def _unmapped(packed: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(packed[12:]) if len(packed) == 16 and packed.startswith(_MAPPED) else ip_address(packed)


def _station(mac: str, index: int) -> bytes:
    head = struct.pack("=BxHiHBB", _AF_BRIDGE, 0, index, _NUD_PERMANENT, _NTF_SELF, 0)
    return head + _attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))


def _address_body(address: IPAddress, index: int) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = struct.pack("=BBBBI", family, address.max_prefixlen, 0, 0, index)
    return head + _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        yield kind & 0x3FFF, body[offset + 4 : offset + length]
        offset += length + 3 & ~3


def _exchange(protocol: int, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
    """Send one request and collect the answers up to the end of the dump or the acknowledgement."""
    answers: list[tuple[int, bytes]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        channel.settimeout(TIMEOUT_S)
        channel.bind((0, 0))
        channel.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0) + body)
        while True:
            data = channel.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, answer, _, _, _ = struct.unpack_from("=IHHII", data, offset)
                content = data[offset + 16 : offset + length]
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return answers
                if answer == _DONE:
                    return answers
                answers.append((answer, content))
                offset += length + 3 & ~3
