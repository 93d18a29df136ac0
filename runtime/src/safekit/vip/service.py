"""What the virtual addresses of a module are to be: small frozen values, and the one error of this room.

Nothing here touches the kernel. `from_config.py` makes these values out of `userconfig.xml`; tests make them by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address


class VipError(Exception):
    """A virtual address cannot be had as declared. `code` is stable; `facts` are what the message is made of.

    `vip.network`    the address is in no network of this node
    `vip.interface`  the forced interface does not exist or has no Ethernet address
    `vip.foreign`    the address is on this node already and is not ours
    `vip.service`    the load balancing rules contradict each other
    `vip.member`     a member of the view has no Ethernet address for a virtual address
    `vip.name`       a name resolves to no address
    `vip.filter`     nftables refused the rules (or is missing)
    `vip.kernel`     the kernel refused a request
    `vip.unsupported` a declared attribute is not built yet
    """

    def __init__(self, code: str, message: str, **facts: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.facts: Mapping[str, str] = dict(facts)


@dataclass(frozen=True)
class ArpReroute:
    """Periodic announcements after the repeats (spec §3.5 `arpreroute`); both in seconds."""

    interval_s: float = 60.0
    elapse_s: float = 1200.0


@dataclass(frozen=True)
class VirtualAddress:
    """One `<virtual_addr>` with what its `<interface>` says of it (spec §3.5).

    `interface` forces the interface; otherwise it is the one whose network contains the address. `prefix_length` is the
    declared netmask and restricts that choice to networks with this mask. `vmac` is the virtual Ethernet address that it
    answers with (`vmac_invisible`), empty where it answers with the node's own.
    """

    address: IPAddress
    interface: str | None = None
    prefix_length: int | None = None
    reroute: ArpReroute | None = None
    vmac: str = ""


class Protocol(StrEnum):
    """The transport of a balanced service; ARP stands for the question who has an address, by ARP or by ND."""

    TCP = "tcp"
    UDP = "udp"
    ARP = "arp"


class HashKey(StrEnum):
    """What decides the bucket of a packet: the client's address, its address and port, or the IPv4 identification."""

    ON_ADDR = "on_addr"
    ON_PORT = "on_port"
    ON_IPID = "on_ipid"


@dataclass(frozen=True)
class BalancingRule:
    """One `<rule>`: None for `address` or `port` is the spec's `*`."""

    protocol: Protocol
    key: HashKey
    address: IPAddress | None = None
    port: int | None = None


@dataclass(frozen=True)
class BalancingGroup:
    """One `<group>`: its rules share one table of buckets. `powers` empty: every member, power 1; otherwise those not
    named have 0. `asked`: the `arp` rules, each an address or None for the spec's `*`.
    """

    name: str
    rules: tuple[BalancingRule, ...]
    powers: Mapping[str, int] = field(default_factory=dict)
    asked: tuple[IPAddress | None, ...] = ()

    def power_of(self, node: str) -> int:
        """The declared weight of `node` in this group."""
        return self.powers.get(node, 0) if self.powers else 1


@dataclass(frozen=True)
class FarmService:
    """All that a farm module declares about its virtual addresses."""

    addresses: tuple[VirtualAddress, ...]
    groups: tuple[BalancingGroup, ...]


@dataclass(frozen=True)
class Placement:
    """Where a virtual address goes on this node: `source` is the node's own address in the same network.

    `vmac`: the virtual Ethernet address, if it has one. `network` is the address of that network, as the `intf` checker
    names its resource (spec §3.5).
    """

    address: IPAddress
    interface: str
    index: int
    mac: str
    source: IPAddress
    network: str = field(default="", compare=False)
    vmac: str = ""

    @property
    def claimed(self) -> str:
        """The Ethernet address that the neighbours are told."""
        return self.vmac or self.mac


@dataclass(frozen=True)
class Flow:
    """One TCP connection to a virtual address, seen from the server."""

    client: IPAddress
    client_port: int
    address: IPAddress
    port: int


@dataclass(frozen=True)
class Member:
    """What the membership payload of an UP node says of it.

    `macs` is `FarmVip.macs()` of that node: virtual address as text -> its Ethernet address on that wire.
    `open` False: the node is in the farm and takes no share (scriptcontrol closed, or being drained).
    """

    macs: Mapping[str, str]
    open: bool = True


View = Mapping[str, Member]


@dataclass(frozen=True)
class Share:
    """How much of a group's clients a node serves."""

    buckets: int
    percent: float

    @property
    def of_256(self) -> float:
        """The share in the reference's unit (n/256, spec §5.2)."""
        return self.percent * 2.56


@dataclass(frozen=True)
class AddressUse:
    """A virtual address on this node: `resolved_by` answers for its Ethernet address (None: the owner of who asks).

    `connections`: established ones; `elsewhere`: those of them whose bucket another node owns now.
    """

    address: IPAddress
    resolved_by: str | None
    connections: int
    elsewhere: int


@dataclass(frozen=True)
class Picture:
    """A farm in the eyes of one node: the nodes in service, per group the owner of each bucket, the addresses, and the
    packets by what became of them.
    """

    nodes: tuple[str, ...]
    owners: Mapping[str, tuple[str | None, ...]]
    addresses: tuple[AddressUse, ...]
    packets: Mapping[str, int]


@dataclass(frozen=True)
class Released:
    """What a release did. `reset` connections were reset; `note` says why fewer than wanted, if so."""

    addresses: tuple[str, ...] = ()
    reset: int = 0
    note: str = ""
