"""The wire, and a farm and mirrors on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from safekit.vip import buckets
from safekit.vip.farm import FarmVip
from safekit.vip.service import (
    BalancingGroup,
    BalancingRule,
    FarmService,
    HashKey,
    Member,
    Protocol,
    Released,
    VirtualAddress,
)
from tests.netns.lab import VIP4, VIP6, Lab, Node, client4, client6, wire

IDENTITY = "the cluster of the tests"
ALL = ("n1", "n2", "n3")
EVERYWHERE = tuple(
    (vip, client(number), 20000 + number) for vip, client in ((VIP4, client4), (VIP6, client6)) for number in range(40)
)
"""Clients of both versions of IP: (virtual address, the client's address, its port)."""
ADDRESSES = (VirtualAddress(ip_address(VIP4)), VirtualAddress(ip_address(VIP6)))
WEB = BalancingGroup(
    "web",
    (
        BalancingRule(Protocol.TCP, HashKey.ON_PORT, None, 80),
        BalancingRule(Protocol.UDP, HashKey.ON_ADDR, None, 80),
    ),
)


class Farm:
    """One module on the servers of the wire: what three daemons would do."""

    def __init__(
        self,
        lab: Lab,
        run: Path,
        groups: Sequence[BalancingGroup] = (WEB,),
        addresses: Sequence[VirtualAddress] = ADDRESSES,
        module: str = "web",
    ) -> None:
        self.lab = lab
        self.module = module
        self._run = run
        self.service = FarmService(tuple(addresses), tuple(groups))
        self.vips = {name: self.daemon(name) for name in lab.servers}

    def daemon(self, name: str) -> FarmVip:
        """A daemon that starts on this node (again)."""
        return FarmVip(self.module, self.service, name, IDENTITY, self._run / name, ALL)

    def node(self, name: str) -> Node:
        return self.lab.servers[name]

    def view(self, *names: str) -> dict[str, Member]:
        return {name: Member(self.node(name).run(self.vips[name].macs)) for name in names}

    def follow(self, *names: str) -> None:
        """These nodes are UP, and each learns it."""
        view = self.view(*names)
        for name in names:
            self.node(name).run(self.vips[name].up, view, () if self.invisible else None)
        if self.invisible:
            for name in names:
                self.node(name).run(self.vips[name].up, view, names)

    @property
    def invisible(self) -> bool:
        """Whether every node hears every frame: then they also learn who let go of what."""
        return any(one.vmac for one in self.service.addresses)

    def follow_without(self, leaving: str) -> None:
        """A planned stop: the others take over, then the node goes."""
        self.follow(*(name for name in self.lab.servers if name != leaving))
        self.down(leaving)

    def down(self, name: str, tcpreset: bool = True) -> Released:
        return self.node(name).run(self.vips[name].down, tcpreset)

    def counters(self, name: str) -> dict[str, int]:
        return self.node(name).run(self.vips[name].counters)

    def owners(self, names: Sequence[str], group: int = 0) -> tuple[str | None, ...]:
        """The table that the model gives when these nodes are UP."""
        powers = {name: self.service.groups[group].power_of(name) for name in ALL}
        return buckets.assign({name: powers[name] for name in names}, f"{IDENTITY}|{self.module}", powers)

    def owner(self, names: Sequence[str], client: str, port: int, key: HashKey) -> str | None:
        """Who the model says must serve this client when these nodes are UP."""
        return self.owners(names)[self.bucket(client, port, key)]

    def bucket(self, client: str, port: int, key: HashKey) -> int:
        """The bucket of this client, by the model."""
        return buckets.bucket_of(ip_address(client), port, key, buckets.hash_seed(f"{IDENTITY}|{self.module}"))

    def elected(self, names: Sequence[str], address: str) -> str:
        found = buckets.elect(sorted(names), ip_address(address), f"{IDENTITY}|{self.module}")
        assert found is not None
        return found


@pytest.fixture
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with wire() as made:
        yield made


@pytest.fixture
def farm(lab: Lab, tmp_path: Path) -> Farm:
    """The servers have the application; nobody is UP yet."""
    for server in lab.servers.values():
        server.serve()
    return Farm(lab, tmp_path)
