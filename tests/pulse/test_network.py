"""`safekit-pulse` and networks that come and go, in a network namespace of its own: IPv6, several lans, addresses
that vanish.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from safekit.membership import (
    GroupChannel,
    GroupLan,
    GroupState,
    HeartbeatLink,
    HeartbeatState,
    LinkDown,
    LinkTrouble,
    MemberPayload,
    PeerAlive,
    PeerLost,
    PeerPayload,
)
from tests.pulse.nodes import KEY, PulseNode, mirror

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="making a network namespace needs root"),
]

V4 = {"n1": "192.0.2.11", "n2": "192.0.2.12"}
V6 = {"n1": "2001:db8::11", "n2": "2001:db8::12"}


class Namespace:
    """A network namespace whose loopback carries the addresses of all nodes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.enter = ("ip", "netns", "exec", name)

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words], check=True, timeout=10)

    def add(self, address: str) -> None:
        """The address appears."""
        if ":" in address:
            self.ip("address", "add", f"{address}/128", "dev", "lo", "nodad")
        else:
            self.ip("address", "add", f"{address}/32", "dev", "lo")

    def remove(self, address: str) -> None:
        """The address vanishes."""
        self.ip("address", "del", f"{address}/{128 if ':' in address else 32}", "dev", "lo")


@pytest.fixture
def network() -> Iterator[Namespace]:
    name = f"pulse-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    try:
        made = Namespace(name)
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=10)


@pytest.fixture
async def pair(network: Namespace, tmp_path: Path) -> AsyncIterator[tuple[PulseNode, PulseNode]]:
    nodes = tuple(PulseNode(name, tmp_path / name, network.enter) for name in ("n1", "n2"))
    yield nodes[0], nodes[1]
    for node in nodes:
        await node.stop()


def links(node: PulseNode) -> dict[str, bool | None]:
    """Which links this node's daemon believes to be up."""
    state = node.client.state("mirror:db")
    assert isinstance(state, HeartbeatState)
    return dict(state.links)


async def test_two_links_of_both_versions_of_ip_go_down_and_up_one_by_one(
    network: Namespace, pair: tuple[PulseNode, PulseNode]
) -> None:
    for address in (*V4.values(), *V6.values()):
        network.add(address)
    for node, name, peer in ((pair[0], "n1", "n2"), (pair[1], "n2", "n1")):
        first = mirror(name, peer, V4, 8888, timeout=1.0)
        second = replace(first.links[0], ident="flow", local=V6[name], remote=V6[peer], timeout=timedelta(seconds=6))
        await node.start(replace(first, links=(first.links[0], second)), payload={"of": name})
    n1 = pair[0]
    await n1.until(lambda: links(n1) == {"default": True, "flow": True})

    n1.told.clear()
    network.remove(V4["n2"])
    await n1.until(lambda: links(n1) == {"default": False, "flow": True})
    assert n1.count(PeerLost) == 0, "one of two links"
    network.remove(V6["n1"])
    await n1.until(lambda: n1.count(PeerLost) == 1)
    assert links(n1) == {"default": False, "flow": False}

    n1.told.clear()
    network.add(V6["n1"])
    await n1.heard(PeerAlive("mirror:db", "n2"))
    network.add(V4["n2"])
    await n1.until(lambda: links(n1) == {"default": True, "flow": True})
    assert n1.count(PeerAlive) == 1


async def test_node_that_boots_before_its_network_beats_as_soon_as_it_is_there(
    network: Namespace, pair: tuple[PulseNode, PulseNode]
) -> None:
    n1, n2 = pair
    network.add(V4["n2"])
    await n2.start(mirror("n2", "n1", V4, 8888))
    await n1.start(mirror("n1", "n2", V4, 8888), payload={"state": "WAIT"})
    await n1.until(lambda: n1.count(LinkTrouble) > 0)
    (trouble,) = (event for event in n1.told if isinstance(event, LinkTrouble))
    assert trouble.reason is not None
    assert "192.0.2.11 port 8888" in trouble.reason
    network.add(V4["n1"])
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "WAIT"}))
    await n1.heard(LinkTrouble("mirror:db", "default", None))
    assert n1.count(LinkTrouble) == 2, "told when it began and when it ended, not at each beat"


async def test_network_that_is_down_is_told_once_and_forgotten_when_it_is_back(
    network: Namespace, pair: tuple[PulseNode, PulseNode]
) -> None:
    for address in V4.values():
        network.add(address)
    n1, n2 = pair
    for node, name, peer in ((n1, "n1", "n2"), (n2, "n2", "n1")):
        await node.start(mirror(name, peer, V4, 8888, timeout=1.5))
    await n1.until(lambda: links(n1) == {"default": True})
    n1.told.clear()
    network.ip("link", "set", "lo", "down")
    await n1.until(lambda: n1.count(PeerLost) == 1)
    network.ip("link", "set", "lo", "up")
    await n1.heard(PeerAlive("mirror:db", "n2"))
    await n1.until(lambda: n1.client.state("mirror:db").troubles == {})
    reasons = [event.reason for event in n1.told if isinstance(event, LinkTrouble)]
    assert len(reasons) <= 2
    assert reasons[-1:] in ([], [None])


async def test_farm_over_ipv6_keeps_its_view_on_one_of_two_lans(
    network: Namespace, pair: tuple[PulseNode, PulseNode]
) -> None:
    for address in (*V4.values(), *V6.values()):
        network.add(address)
    for node, name, peer in ((pair[0], "n1", "n2"), (pair[1], "n2", "n1")):
        lans = (GroupLan("default", V4[name], ((peer, V4[peer]),)), GroupLan("six", V6[name], ((peer, V6[peer]),)))
        await node.start(
            GroupChannel("farm:web", name, 4803, KEY, lans, slost_count=30, mlost_count=30), payload={"state": "UP"}
        )
    n1 = pair[0]

    def members() -> tuple[str, ...]:
        state = n1.client.state("farm:web")
        assert isinstance(state, GroupState)
        return state.view.members if state.view else ()

    await n1.until(lambda: members() == ("n1", "n2"))
    network.remove(V4["n2"])
    await n1.heard(LinkDown("farm:web", "default", "n2"))
    await pair[1].client.publish("farm:web", {"state": "UP", "on": "six"})
    await n1.heard(MemberPayload("farm:web", "n2", {"state": "UP", "on": "six"}))
    assert members() == ("n1", "n2")
    network.remove(V6["n2"])
    await n1.until(lambda: members() == ("n1",))


def test_link_of_two_versions_of_ip_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="expected the same IP version"):
        replace(mirror("n1", "n2", V4, 8888), links=(HeartbeatLink("default", V4["n1"], V6["n2"]),))
