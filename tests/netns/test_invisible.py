"""`vmac_invisible` on real wires: the switch floods, every node hears, one takes (spec §5.4)."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from safekit.vip.farm import FarmVip
from safekit.vip.invisible import derived_mac
from safekit.vip.service import BalancingGroup, BalancingRule, HashKey, Member, Protocol, VipError, VirtualAddress
from tests.netns.conftest import ADDRESSES, ALL, EVERYWHERE, IDENTITY, WEB, Farm
from tests.netns.lab import (
    VIP4,
    VIP6,
    Lab,
    Node,
    arp_answers,
    client4,
    client6,
    connect,
    datagram_answers,
    neighbour_answers,
    ping_answers,
    send_datagrams,
    still_served_by,
    watch_rules,
    who_serves,
)

pytestmark = pytest.mark.netns
VMAC = derived_mac(ip_address(VIP4))
UNSEEN = tuple(replace(one, vmac=VMAC) for one in ADDRESSES)


@pytest.fixture
def unseen(farm: Farm, tmp_path: Path) -> Farm:
    """The farm behind a virtual Ethernet address; nobody is UP yet."""
    return Farm(farm.lab, tmp_path, addresses=UNSEEN)


def known_to_switch(lab: Lab) -> bool:
    """Whether the switch has learned where the virtual Ethernet address is."""
    return VMAC in lab.switch.command("bridge", "fdb", "show", "br", "br0")


def test_each_client_is_served_by_its_node_and_no_switch_learns_the_address(unseen: Farm) -> None:
    unseen.follow(*ALL)
    client = unseen.lab.client
    for name in ALL:
        unseen.node(name).command("ip", "neighbour", "flush", "all")
    served = {one: client.run(who_serves, one[1], one[0], 80, one[2]) for one in EVERYWHERE}
    assert served == {one: unseen.owner(ALL, one[1], one[2], HashKey.ON_PORT) for one in EVERYWHERE}
    assert set(served.values()) == set(ALL)
    for vip in (VIP4, VIP6):
        assert VMAC in client.command("ip", "neighbour", "show", vip)
    assert not known_to_switch(unseen.lab)


def test_one_node_answers_for_the_address_with_its_own_as_the_source(unseen: Farm) -> None:
    unseen.follow(*ALL)
    client = unseen.lab.client
    assert client.run(arp_answers, client.mac, client4(1), VIP4) == [unseen.node(unseen.elected(ALL, VIP4)).mac]
    assert client.run(neighbour_answers, client.mac, client6(1), VIP6) == [unseen.node(unseen.elected(ALL, VIP6)).mac]
    client.command("ip", "neighbour", "flush", "all")
    # What the client takes from an answer, and not from an announcement.
    for vip, source in ((VIP4, client4(1)), (VIP6, client6(1))):
        assert client.run(ping_answers, source, vip) == 1
        assert VMAC in client.command("ip", "neighbour", "show", vip)
    assert not known_to_switch(unseen.lab)


def test_a_ping_is_heard_by_every_node_and_answered_once(unseen: Farm) -> None:
    unseen.follow(*ALL)
    client = unseen.lab.client
    for vip, source in ((VIP4, client4), (VIP6, client6)):
        assert client.run(ping_answers, source(0), vip) == 1
        before = {name: unseen.counters(name) for name in ALL}
        for number in range(4):
            assert client.run(ping_answers, source(number), vip) == 1
        after = {name: unseen.counters(name) for name in ALL}
        heard = {name: sum(after[name][kind] - before[name][kind] for kind in ("local", "left")) for name in ALL}
        assert heard == dict.fromkeys(ALL, 4)
        assert sum(after[name]["local"] - before[name]["local"] for name in ALL) == 4


def test_every_packet_is_taken_exactly_once_by_the_node_that_the_model_names(unseen: Farm, tmp_path: Path) -> None:
    by_port = BalancingGroup("web", (BalancingRule(Protocol.UDP, HashKey.ON_PORT, None, 9),))
    farm = Farm(unseen.lab, tmp_path, [by_port], UNSEEN)
    client, count = farm.lab.client, 2_000
    farm.follow(*ALL)
    for names in (ALL, ("n2", "n3")):
        if names != ALL:
            farm.node("n1").die()
            farm.follow(*names)
        before = {name: farm.counters(name) for name in names}
        owners = farm.owners(names)
        expected: Counter[str | None] = Counter()
        for vip, base in ((VIP4, ip_address("10.130.0.0")), (VIP6, ip_address("fd77::"))):
            flows = [(base + number % 2500, 1024 + number) for number in range(count)]
            client.run(send_datagrams, client.mac, VMAC, flows, ip_address(vip))
            expected.update(owners[farm.bucket(str(source), port, HashKey.ON_PORT)] for source, port in flows)
        after = {name: farm.counters(name) for name in names}
        grown = {name: {kind: after[name][kind] - before[name][kind] for kind in after[name]} for name in names}
        assert {name: grown[name]["local"] for name in names} == expected
        assert {name: grown[name]["local"] + grown[name]["left"] for name in names} == dict.fromkeys(names, 2 * count)
        assert not any(one for name in names for kind, one in grown[name].items() if kind.startswith("forwarded"))


def test_a_join_and_a_return_break_no_connection(unseen: Farm) -> None:
    unseen.follow("n1", "n2")
    client = unseen.lab.client
    held = [client.run(connect, source, vip, 80, port) for vip, source, port in EVERYWHERE]
    first = [connection.recv(10).decode().strip() for connection in held]
    unseen.follow(*ALL)
    assert [still_served_by(connection) for connection in held] == first
    assert unseen.counters("n3")["second_chance"] > 0
    new = {client.run(who_serves, source, vip, 80, port + 1000) for vip, source, port in EVERYWHERE}
    assert new == set(ALL)
    unseen.follow_without("n2")
    for connection, name in zip(held, first, strict=True):
        if name == "n2":
            with pytest.raises(ConnectionError):
                still_served_by(connection)
        else:
            assert still_served_by(connection) == name
        connection.close()
    assert not known_to_switch(unseen.lab)


def test_a_joining_node_takes_nobody_before_the_others_let_him_go(unseen: Farm) -> None:
    unseen.follow("n1", "n2")
    view = unseen.view(*ALL)
    clients = {client4(number): 0 for number in range(40)}

    def taken(*let_go: str) -> set[str]:
        unseen.node("n3").run(unseen.vips["n3"].up, view, let_go)
        answers = unseen.lab.client.run(datagram_answers, clients, VIP4, 8, 0.5)
        assert max(map(len, answers.values())) == 1, "nobody is answered twice"
        return {one for one, names in answers.items() if names == ["n3"]}

    assert taken() == set()
    unseen.node("n1").run(unseen.vips["n1"].update, view)
    assert taken() == set()
    of_n1 = taken("n1")
    assert {unseen.owner(("n1", "n2"), one, 0, HashKey.ON_ADDR) for one in of_n1} == {"n1"}
    unseen.node("n2").run(unseen.vips["n2"].update, view)
    every = taken("n1", "n2")
    assert every == {one for one in clients if unseen.owner(ALL, one, 0, HashKey.ON_ADDR) == "n3"}
    assert of_n1 < every


def test_a_closed_node_lets_go_before_the_others_take(unseen: Farm) -> None:
    unseen.follow(*ALL)
    clients = {client4(number): 0 for number in range(40)}
    view = unseen.view(*ALL)
    view["n1"] = Member(view["n1"].macs, open=False)
    for name in ALL:
        unseen.node(name).run(unseen.vips[name].update, view, ("n1",))
        answers = unseen.lab.client.run(datagram_answers, clients, VIP4, 8, 0.5)
        assert max(map(len, answers.values())) == 1
    assert {name for names in answers.values() for name in names} == {"n2", "n3"}
    assert min(map(len, answers.values())) == 1


def test_what_no_rule_names_is_refused_by_one_node(unseen: Farm) -> None:
    for server in unseen.lab.servers.values():
        server.serve(81)
    unseen.follow(*ALL)
    for vip, client in ((VIP4, client4(1)), (VIP6, client6(1))):
        before = {name: unseen.counters(name)["refused"] for name in ALL}
        with pytest.raises(ConnectionRefusedError):
            unseen.lab.client.run(connect, client, vip, 81)
        refused = [name for name in ALL if unseen.counters(name)["refused"] > before[name]]
        assert refused == [unseen.elected(ALL, vip)]
    assert not known_to_switch(unseen.lab)


def test_a_frame_to_the_virtual_ethernet_address_for_somebody_else_ends_at_the_card(unseen: Farm) -> None:
    unseen.follow("n1", "n2")
    n1 = unseen.node("n1")
    heard = n1.run(_bound, n1.address4, 9)
    client = unseen.lab.client
    with heard:
        client.run(send_datagrams, client.mac, VMAC, [(ip_address(client4(1)), 1024)], ip_address(n1.address4))
        client.run(send_datagrams, client.mac, n1.mac, [(ip_address(client4(2)), 1025)], ip_address(n1.address4))
        assert heard.recvfrom(10)[1][0] == client4(2)


def _bound(address: str, port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(10)
    one.bind((address, port))
    return one


def wire_of(node: Node) -> str:
    """All that the product may change on a node."""
    return node.addresses() + node.command("bridge", "fdb", "show") + node.command("nft", "list", "ruleset")


def test_nothing_is_left_after_a_stop_and_after_a_crash(unseen: Farm, tmp_path: Path) -> None:
    node = unseen.node("n3")
    before = wire_of(node)
    unseen.follow(*ALL)
    assert VMAC in node.command("bridge", "fdb", "show")
    unseen.down("n3")
    assert wire_of(node) == before
    unseen.follow(*ALL)
    other = FarmVip("web", replace(unseen.service, addresses=ADDRESSES), "n3", IDENTITY, tmp_path / "n3")
    node.run(other.down, True)
    assert wire_of(node) == before
    assert list((tmp_path / "n3").iterdir()) == []


def test_a_restarted_daemon_goes_on_without_a_write(unseen: Farm) -> None:
    unseen.follow("n1", "n2")
    unseen.follow(*ALL)
    client = unseen.lab.client
    held = [client.run(connect, source, vip, 80, port) for vip, source, port in EVERYWHERE]
    names = [connection.recv(10).decode().strip() for connection in held]
    view = unseen.view(*ALL)
    for name in ALL:
        with watch_rules(unseen.node(name)) as written:
            unseen.vips[name] = unseen.daemon(name)
            # It has not heard yet that the others follow.
            assert unseen.node(name).run(unseen.vips[name].update, view, ()) is False
            assert unseen.node(name).run(unseen.vips[name].update, view, ALL) is False
        assert written == []
        assert unseen.node(name).run(unseen.vips[name].held)
    assert [still_served_by(connection) for connection in held] == names
    for connection in held:
        connection.close()


def test_what_a_stranger_took_from_the_card_is_put_back(unseen: Farm) -> None:
    unseen.follow(*ALL)
    node = unseen.node("n2")
    node.command("bridge", "fdb", "del", VMAC, "dev", "eth0", "self")
    view = unseen.view(*ALL)
    assert node.run(unseen.vips["n2"].update, view, ALL) is True
    assert VMAC in node.command("bridge", "fdb", "show")
    assert node.run(unseen.vips["n2"].update, view, ALL) is False


def test_an_address_that_the_configuration_no_longer_names_leaves_the_card(unseen: Farm, tmp_path: Path) -> None:
    node = unseen.node("n1")
    view = unseen.view("n1")
    node.run(unseen.vips["n1"].up, view)
    other = "5a:fe:00:00:00:07"
    renamed = replace(unseen.service, addresses=tuple(replace(one, vmac=other) for one in UNSEEN))
    node.run(FarmVip("web", renamed, "n1", IDENTITY, tmp_path / "n1", ALL).up, view)
    known = node.command("bridge", "fdb", "show")
    assert other in known and VMAC not in known
    assert unseen.lab.client.run(who_serves, client4(1), VIP4) == "n1"


def above(lab: Lab, node: Node, number: int) -> None:
    """Give the node a macvlan whose parent is the machine's around it, in a network of its own."""
    switch, parent = lab.switch, f"m-{node.name}"
    switch.command("ip", "link", "add", parent, "type", "veth", "peer", "name", f"b-{node.name}")
    switch.command("ip", "link", "set", f"b-{node.name}", "master", "br0", "up")
    switch.command("ip", "link", "set", parent, "up")
    macvlan = ("type", "macvlan", "mode", "bridge")
    switch.command("ip", "link", "add", "above", "link", parent, "netns", str(node.thread_id), *macvlan)
    node.command("ip", "address", "add", f"10.77.0.{number}/16", "dev", "above")
    node.command("sysctl", "-qw", "net.ipv6.conf.above.disable_ipv6=1")  # no address comes by itself, later
    node.command("ip", "link", "set", "above", "up")


def test_an_interface_that_takes_no_second_address_is_refused_and_nothing_stays(lab: Lab, tmp_path: Path) -> None:
    node, vip = lab.servers["n1"], ip_address("10.77.0.100")
    above(lab, node, 1)
    before = wire_of(node)
    farm = Farm(lab, tmp_path, [WEB], [VirtualAddress(vip, vmac=derived_mac(vip))])
    with pytest.raises(VipError, match="interface above cannot be told to receive what goes to 5a:fe:0a:4d:00:64"):
        node.run(farm.vips["n1"].up, farm.view("n1"))
    assert wire_of(node) == before
    assert list((tmp_path / "n1").iterdir()) == []


def test_nodes_on_macvlans_share_a_multicast_address(farm: Farm, tmp_path: Path) -> None:
    lab, vip = farm.lab, ip_address("10.77.0.100")
    for number, node in enumerate([*lab.servers.values(), lab.client], 1):
        above(lab, node, number)
        node.die()  # the other interface on the same wire: a node would hear it there too
    farm = Farm(lab, tmp_path, [WEB], [VirtualAddress(vip, vmac="5b:fe:0a:4d:00:64")])
    before = wire_of(lab.servers["n1"])
    farm.follow(*ALL)
    served = {port: lab.client.run(who_serves, "10.77.0.4", str(vip), 80, port) for port in range(20000, 20030)}
    assert served == {port: farm.owner(ALL, "10.77.0.4", port, HashKey.ON_PORT) for port in served}
    assert set(served.values()) == set(ALL)
    assert lab.client.run(ping_answers, "10.77.0.4", str(vip)) == 1
    farm.down("n1")
    assert wire_of(lab.servers["n1"]) == before
