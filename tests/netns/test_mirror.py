"""The addresses of a mirror on real wires: taken whole, announced, released with its connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from safekit.membership.release import release
from safekit.vip import netlink
from safekit.vip.addresses import Addresses, local_mac
from safekit.vip.mirror import MirrorVip
from safekit.vip.service import ArpReroute, VipError, VirtualAddress
from tests.netns.lab import VIP4, VIP6, Lab, client4, client6, connect, ping_answers, who_serves

pytestmark = pytest.mark.netns
BOTH = (VirtualAddress(ip_address(VIP4)), VirtualAddress(ip_address(VIP6)))
Mirror = Callable[..., MirrorVip]


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    def on(name: str, addresses: tuple[VirtualAddress, ...] = BOTH) -> MirrorVip:
        return MirrorVip("db", addresses, tmp_path / name)

    return on


def test_the_address_is_on_one_node_and_the_neighbours_follow_it_at_once(lab: Lab, mirror: Mirror) -> None:
    n1, n2 = lab.servers["n1"], lab.servers["n2"]
    for server in (n1, n2):
        server.serve()
    first, second = mirror("n1"), mirror("n2")
    n1.run(first.take)
    assert n1.run(first.held) and not n2.run(second.held)
    assert lab.client.run(who_serves, client4(1), VIP4) == "n1"
    assert lab.client.run(who_serves, client6(1), VIP6) == "n1"
    n1.run(first.release, True)
    n2.run(second.take)
    assert not n1.run(first.held) and n2.run(second.held)
    for vip in (VIP4, VIP6):
        assert n2.mac in lab.client.command("ip", "neighbour", "show", vip)
    assert lab.client.run(who_serves, client4(1), VIP4) == "n2"
    assert lab.client.run(who_serves, client6(1), VIP6) == "n2"


def test_taking_and_releasing_again_change_nothing(lab: Lab, mirror: Mirror) -> None:
    n1 = lab.servers["n1"]
    before = n1.addresses()
    vip = mirror("n1")
    n1.run(vip.take)
    taken = n1.addresses()
    n1.run(vip.take)
    assert n1.addresses() == taken
    assert set(n1.run(vip.release, False).addresses) == {VIP4, VIP6}
    assert n1.run(vip.release, False).addresses == ()
    assert n1.addresses() == before


def test_a_new_daemon_knows_the_address_as_its_own_and_releases_it(lab: Lab, mirror: Mirror) -> None:
    n1 = lab.servers["n1"]
    before = n1.addresses()
    n1.run(mirror("n1").take)
    assert all(entry.ours for entry in n1.run(netlink.addresses) if str(entry.address) in (VIP4, VIP6))
    later = mirror("n1")
    assert n1.run(later.held)
    n1.run(later.take)
    n1.run(later.release, True)
    assert n1.addresses() == before


def test_an_address_that_the_configuration_no_longer_names_is_released_too(lab: Lab, mirror: Mirror) -> None:
    n1 = lab.servers["n1"]
    n1.run(mirror("n1").take)
    assert set(n1.run(mirror("n1", BOTH[:1]).release, False).addresses) == {VIP4, VIP6}


@pytest.mark.parametrize("mask", ["32", "16"], ids=["host", "network"])
def test_an_address_that_was_there_before_is_refused_and_never_touched(lab: Lab, mirror: Mirror, mask: str) -> None:
    n1 = lab.servers["n1"]
    n1.command("ip", "address", "add", f"{VIP4}/{mask}", "dev", "eth0")
    before = n1.addresses()
    vip = mirror("n1")
    with pytest.raises(VipError, match=f"VIP {VIP4} is already an address of eth0 and was not set by this module"):
        n1.run(vip.take)
    assert not n1.run(vip.held)
    assert n1.run(vip.release, True).addresses == ()
    assert n1.addresses() == before


def test_all_addresses_are_set_or_none(lab: Lab, mirror: Mirror, tmp_path: Path) -> None:
    n1 = lab.servers["n1"]
    before = n1.addresses()
    outside = (*BOTH, VirtualAddress(ip_address("10.1.2.3")))
    with pytest.raises(VipError) as refused:
        n1.run(mirror("n1", outside).take)
    assert refused.value.code == "vip.network"
    assert refused.value.message == (
        "VIP 10.1.2.3 is in no network of this node (eth0 10.66.0.11/16): give it an address of one of these networks"
    )
    assert n1.addresses() == before
    good, bad = n1.run(mirror("n1").plan)
    with pytest.raises(VipError, match=f"the kernel refused to set VIP {VIP6} on eth0: No such device"):
        n1.run(Addresses(tmp_path / "n1").add, (good, replace(bad, index=9999)))
    assert n1.addresses() == before
    assert list((tmp_path / "n1").iterdir()) == []


def test_connections_are_reset_before_the_address_goes(lab: Lab, mirror: Mirror) -> None:
    n1 = lab.servers["n1"]
    n1.serve()
    vip = mirror("n1")
    n1.run(vip.take)
    through = [lab.client.run(connect, client4(n), VIP4) for n in range(3)]
    through += [lab.client.run(connect, client6(n), VIP6) for n in range(3)]
    beside = lab.client.run(connect, client4(1), n1.address4)
    for connection in [*through, beside]:
        assert connection.recv(10) == b"n1\n"
    released = n1.run(vip.release, True)
    assert (released.reset, released.note) == (6, "")
    for connection in through:
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    beside.sendall(b"?\n")
    assert beside.recv(10) == b"n1\n"
    for connection in [*through, beside]:
        connection.close()


def test_without_tcpreset_connections_are_left_alone(lab: Lab, mirror: Mirror) -> None:
    n1 = lab.servers["n1"]
    n1.serve()
    vip = mirror("n1")
    n1.run(vip.take)
    connection = lab.client.run(connect, client4(1), VIP4)
    assert connection.recv(10) == b"n1\n"
    assert n1.run(vip.release, False).reset == 0
    connection.setblocking(False)
    with pytest.raises(BlockingIOError):
        connection.recv(10)
    connection.close()


def test_the_node_speaks_in_its_own_name_while_it_holds_the_address(lab: Lab, mirror: Mirror) -> None:
    n1 = lab.servers["n1"]
    n1.run(mirror("n1").take)

    def source_towards(target: str) -> str:
        with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])

    assert n1.run(source_towards, client4(1)) == n1.address4
    assert n1.run(source_towards, client6(1)) == n1.address6
    assert lab.client.run(ping_answers, client6(1), VIP6) == 1


def test_a_neighbour_that_missed_the_first_announcement_hears_a_repeat(lab: Lab, mirror: Mirror) -> None:
    n1 = lab.servers["n1"]
    reroute = tuple(replace(one, reroute=ArpReroute(0.05, 0.2)) for one in BOTH)
    vip = mirror("n1", reroute)
    n1.run(vip.take)
    kinds = 0x0003  # every protocol
    heard = lab.client.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kinds))
    heard.bind(("eth0", kinds))
    heard.setblocking(False)
    n1.run(lambda: asyncio.run(asyncio.wait_for(vip.keep_announcing(), 10)))
    frames = []
    while True:
        try:
            frames.append(heard.recv(2000))
        except BlockingIOError:
            break
    heard.close()
    arp = [one for one in frames if one[12:14] == b"\x08\x06" and one[28:32] == socket.inet_aton(VIP4) == one[38:42]]
    advertisements = [one for one in frames if one[12:14] == b"\x86\xdd" and one[54] == 136]
    assert (len(arp), len(advertisements)) == (6, 3)


def test_a_release_ends_the_announcements(lab: Lab, mirror: Mirror) -> None:
    n1 = lab.servers["n1"]
    vip = mirror("n1")
    n1.run(vip.take)

    async def release_in_between() -> None:
        announcing = asyncio.create_task(vip.keep_announcing())
        await asyncio.sleep(0)
        vip.release(False)
        await asyncio.wait_for(announcing, 5)

    n1.run(lambda: asyncio.run(release_in_between()))
    assert not n1.run(vip.held)


def test_the_ethernet_address_of_an_interface(lab: Lab) -> None:
    n1 = lab.servers["n1"]
    assert n1.run(local_mac, "eth0") == n1.mac
    with pytest.raises(VipError, match="this node has no interface eth7"):
        n1.run(local_mac, "eth7")


def test_what_the_pulse_releases_is_gone_and_can_be_taken_again(lab: Lab, mirror: Mirror) -> None:
    n1, vip = lab.servers["n1"], mirror("n1")
    n1.run(vip.take)
    n1.run(release, n1.run(vip.places))
    ours = {address.address for address in BOTH}
    assert not {entry.address for entry in n1.run(netlink.addresses)} & ours
    n1.run(release, n1.run(vip.places))
    n1.run(vip.take)
    assert n1.run(vip.held)
    n1.run(vip.release, False)
