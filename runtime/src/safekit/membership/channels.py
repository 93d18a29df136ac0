"""What a channel is: the definitions that `safekitd` gives to `safekit-pulse`, checked when they are made.

A channel is one stream of beats of this node to its peers: a mirror's heartbeats, a farm's or the cluster's
membership. Addresses are IP literals (names are resolved when a configuration is applied, spec §2). Durations are
`timedelta`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # the pulse does without the grammar
    from safekit.config import Lan

KEY_BYTES = 32
DATAGRAM_BYTES = 1400
"""A beat never exceeds this: it fits one Ethernet frame, IPv6 and tunnels included."""

PROMISE = "m"
"""The one word of a payload that the pulse understands: the promise of a secondary (`heartbeat.py`)."""

_LONGEST_NAME = 63
_SHORTEST_PULSE = timedelta(milliseconds=10)


class ChannelError(ValueError):
    """A channel cannot be as asked: `channel`, `field` and `value` say where, the text says what was expected."""

    def __init__(self, channel: str, field: str, value: object, expected: str) -> None:
        super().__init__(f"channel {channel!r}: {field} is {value!r}, expected {expected}")
        self.channel, self.field, self.value, self.expected = channel, field, value, expected


class PayloadTooLarge(ChannelError):
    """A payload does not fit the one datagram that carries it."""

    def __init__(self, channel: str, size: int, limit: int) -> None:
        super().__init__(channel, "payload", f"{size} bytes", f"at most {limit} bytes once encoded")
        self.size, self.limit = size, limit


@dataclass(frozen=True)
class HeartbeatLink:
    """One `<heartbeat>` of spec §3.3: this node's address (`laddr` under NAT) and the peer's address on that lan."""

    ident: str
    local: str
    remote: str
    pulse: timedelta = timedelta(milliseconds=700)
    timeout: timedelta = timedelta(milliseconds=30000)


@dataclass(frozen=True)
class HeartbeatChannel:
    """The heartbeats of one mirror module between `node` (this one) and `peer`. `key`: 32 bytes, equal on both."""

    name: str
    node: str
    peer: str
    port: int
    key: bytes
    links: tuple[HeartbeatLink, ...]

    def __post_init__(self) -> None:
        _check_common(self.name, self.port, self.key, (self.node, self.peer))
        if not self.links:
            raise ChannelError(self.name, "links", (), "at least one heartbeat")
        idents = [link.ident for link in self.links]
        for link in self.links:
            _check_name(self.name, "ident", link.ident)
            _check_addresses(self.name, link.ident, link.local, link.remote)
            _check_pulse(self.name, link.pulse)
            if link.timeout <= link.pulse:
                raise ChannelError(
                    self.name, f"timeout of {link.ident}", link.timeout, f"more than the pulse ({link.pulse})"
                )
        if len(set(idents)) != len(idents):
            raise ChannelError(self.name, "links", idents, "each ident once")


@dataclass(frozen=True)
class GroupLan:
    """One lan of a group: this node's address on it and the other members' (a member need not be on every lan)."""

    name: str
    local: str
    peers: tuple[tuple[str, str], ...]
    """(node, address) of every other member on this lan."""


def group_lan(lan: Lan, node: str) -> GroupLan | None:
    """A lan of the cluster as `node` uses it; None when it is not on that lan."""
    mine = lan.node(node)
    if mine is None:
        return None
    peers = tuple((other.name, str(other.addr)) for other in lan.nodes if other.name != node)
    return GroupLan(lan.name, local=str(mine.laddr or mine.addr), peers=peers)


@dataclass(frozen=True)
class GroupChannel:
    """The membership of a farm module or of the cluster (spec §2, §3.4). `lans` may have no peer at all: a group of
    one.
    """

    name: str
    node: str
    port: int
    key: bytes
    lans: tuple[GroupLan, ...]
    pulse: timedelta = timedelta(milliseconds=100)
    mlost_count: int = 20
    slost_count: int = 10

    def __post_init__(self) -> None:
        _check_common(self.name, self.port, self.key, self.nodes)
        _check_pulse(self.name, self.pulse)
        if not self.lans:
            raise ChannelError(self.name, "lans", (), "at least one lan")
        if len({lan.name for lan in self.lans}) != len(self.lans):
            raise ChannelError(self.name, "lans", [lan.name for lan in self.lans], "each lan once")
        for lan in self.lans:
            _check_name(self.name, "lan", lan.name)
            for node, address in lan.peers:
                if node == self.node:
                    raise ChannelError(self.name, f"peers of {lan.name}", node, "other nodes only")
                _check_addresses(self.name, lan.name, lan.local, address)
            _check_addresses(self.name, lan.name, lan.local, lan.local)
        if self.slost_count < 2:
            raise ChannelError(self.name, "slost_count", self.slost_count, "at least 2")
        if self.mlost_count < self.slost_count:
            raise ChannelError(self.name, "mlost_count", self.mlost_count, f"at least slost_count ({self.slost_count})")

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node of the configuration, this one included, in the order of names."""
        return tuple(sorted({self.node} | {node for lan in self.lans for node, _ in lan.peers}))


Channel: TypeAlias = HeartbeatChannel | GroupChannel


def _check_common(channel: str, port: int, key: bytes, nodes: tuple[str, ...]) -> None:
    _check_name(channel, "name", channel)
    for node in nodes:
        _check_name(channel, "node", node)
    if len(set(nodes)) != len(nodes):
        raise ChannelError(channel, "peer", nodes[-1], "another node than this one")
    if not 0 < port < 65536:
        raise ChannelError(channel, "port", port, "1 to 65535")
    if len(key) != KEY_BYTES:
        raise ChannelError(channel, "key", f"{len(key)} bytes", f"{KEY_BYTES} bytes")


def _check_name(channel: str, field: str, name: str) -> None:
    if not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise ChannelError(channel, field, name, f"1 to {_LONGEST_NAME} bytes")


def _check_pulse(channel: str, pulse: timedelta) -> None:
    if pulse < _SHORTEST_PULSE:
        raise ChannelError(channel, "pulse", pulse, f"at least {_SHORTEST_PULSE}")


def _check_addresses(channel: str, ident: str, local: str, remote: str) -> None:
    families = []
    for text in (local, remote):
        try:
            families.append(ip_address(text).version)
        except ValueError:
            raise ChannelError(channel, f"address on {ident}", text, "an IPv4 or IPv6 address") from None
    if families[0] != families[1]:
        raise ChannelError(channel, f"address on {ident}", remote, f"the same IP version as {local}")
