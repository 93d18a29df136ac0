"""The farm on real wires: each client has one node, whatever comes and goes (spec §5.3, §5.4, §14.3)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest

from safekit.module.connections import count_connections
from safekit.vip.farm import FarmVip
from safekit.vip.service import BalancingGroup, BalancingRule, HashKey, Member, Protocol, VipError
from tests.netns.conftest import ALL, EVERYWHERE, WEB, Farm
from tests.netns.lab import (
    VIP4,
    VIP6,
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


def test_each_tcp_client_is_served_by_the_node_that_the_model_names(farm: Farm) -> None:
    farm.follow(*ALL)
    served = {
        (vip, client, port): farm.lab.client.run(who_serves, client, vip, 80, port) for vip, client, port in EVERYWHERE
    }
    assert served == {
        (vip, client, port): farm.owner(ALL, client, port, HashKey.ON_PORT) for vip, client, port in EVERYWHERE
    }
    assert set(served.values()) == set(ALL)


@pytest.mark.parametrize("size", [8, 4000], ids=["whole", "fragmented"])
def test_each_datagram_is_answered_once_by_the_node_that_the_model_names(farm: Farm, size: int) -> None:
    farm.follow(*ALL)
    for vip, client in ((VIP4, client4), (VIP6, client6)):
        clients = {client(number): 0 for number in range(40)}
        answers = farm.lab.client.run(datagram_answers, clients, vip, size)
        assert answers == {one: [farm.owner(ALL, one, 0, HashKey.ON_ADDR)] for one in clients}


def test_a_ping_is_answered_once(farm: Farm) -> None:
    farm.follow(*ALL)
    for number in range(4):
        assert farm.lab.client.run(ping_answers, client4(number), VIP4) == 1
        assert farm.lab.client.run(ping_answers, client6(number), VIP6) == 1


def test_one_node_answers_arp_and_neighbour_solicitations(farm: Farm) -> None:
    farm.follow(*ALL)
    client = farm.lab.client
    assert client.run(arp_answers, client.mac, client.address4, VIP4) == [farm.node(farm.elected(ALL, VIP4)).mac]
    assert client.run(neighbour_answers, client.mac, client.address6, VIP6) == [farm.node(farm.elected(ALL, VIP6)).mac]


def test_serving_does_not_draw_the_address_to_a_node_that_was_not_elected(farm: Farm) -> None:
    farm.follow(*ALL)
    client = farm.lab.client
    for number in range(20):
        for server in farm.lab.servers.values():
            server.command("ip", "neighbour", "flush", "all")
        client.run(who_serves, client4(number), VIP4)
        client.run(who_serves, client6(number), VIP6)
        for vip in (VIP4, VIP6):
            assert farm.node(farm.elected(ALL, vip)).mac in client.command("ip", "neighbour", "show", vip)


def test_an_icmp_error_reaches_the_node_of_the_quoted_client(farm: Farm) -> None:
    farm.follow(*ALL)
    farm.lab.client.run(who_serves, client4(0), VIP4)
    farm.lab.client.run(who_serves, client6(0), VIP6)
    before = {name: farm.counters(name) for name in ALL}
    expected: Counter[str | None] = Counter()
    for number in range(30):
        for vip, quoted, port in ((VIP4, f"10.129.1.{number}", 30000 + number), (VIP6, f"fd77::{number + 1:x}", 31000)):
            farm.lab.client.run(send_too_big, vip, quoted, port)
            expected[farm.owner(ALL, quoted, port, HashKey.ON_PORT)] += 1
    after = {name: farm.counters(name) for name in ALL}
    served = {name: sum(after[name][kind] - before[name][kind] for kind in ("local", "taken")) for name in ALL}
    assert served == expected


def send_too_big(vip: str, client: str, port: int) -> None:
    """What a router says about a packet from the VIP's port 80 to a client."""
    tcp = struct.pack(">HHI", 80, port, 1)
    source, target = ip_address(vip).packed, ip_address(client).packed
    if len(source) == 4:
        quoted = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 1500, 1, 0, 64, 6, 0, source, target) + tcp
        body = struct.pack(">BBHHH", 3, 4, 0, 0, 1400) + quoted
        total = sum(struct.unpack(f">{len(body) // 2}H", body))
        total = (total & 0xFFFF) + (total >> 16)
        body = body[:2] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
        family, protocol = socket.AF_INET, socket.IPPROTO_ICMP
    else:
        body = struct.pack(">BBHI", 2, 0, 0, 1400) + struct.pack(">IHBB", 6 << 28, 1460, 6, 64) + source + target + tcp
        family, protocol = socket.AF_INET6, socket.IPPROTO_ICMPV6
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.sendto(body, (vip, 0))


def test_what_no_rule_names_is_refused(farm: Farm) -> None:
    for server in farm.lab.servers.values():
        server.serve(81)
    farm.follow(*ALL)
    for vip, client in ((VIP4, client4(1)), (VIP6, client6(1))):
        with pytest.raises(ConnectionRefusedError):
            farm.lab.client.run(connect, client, vip, 81)
    assert farm.lab.client.run(who_serves, client4(1), farm.node("n2").address4, 81) == "n2"


def test_a_node_reaches_the_address_on_itself(farm: Farm) -> None:
    farm.follow(*ALL)
    for name in ALL:
        assert farm.node(name).run(who_serves, "", VIP4) == name
        assert farm.node(name).run(who_serves, "", VIP6) == name


def test_a_node_never_speaks_in_the_name_of_the_address_by_itself(farm: Farm) -> None:
    farm.follow(*ALL)

    def source_towards(target: str) -> str:
        with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])

    for name in ALL:
        assert farm.node(name).run(source_towards, client4(3)) == farm.node(name).address4
        assert farm.node(name).run(source_towards, client6(3)) == farm.node(name).address6


def test_a_death_moves_the_dead_nodes_clients_and_no_others(farm: Farm) -> None:
    farm.follow(*ALL)
    before = {one: farm.lab.client.run(who_serves, one[1], one[0], 80, one[2]) for one in EVERYWHERE}
    dead = farm.elected(ALL, VIP4)
    alive = tuple(name for name in ALL if name != dead)
    farm.node(dead).die()
    farm.follow(*alive)
    after = {one: farm.lab.client.run(who_serves, one[1], one[0], 80, one[2]) for one in EVERYWHERE}
    moved = [one for one in EVERYWHERE if before[one] != dead and before[one] != after[one]]
    assert moved == []
    assert set(after.values()) == set(alive)


def test_the_heir_of_the_elected_node_tells_the_clients_at_once(farm: Farm) -> None:
    farm.follow(*ALL)
    client = farm.lab.client
    dead = farm.elected(ALL, VIP4)
    alive = tuple(name for name in ALL if name != dead)
    client.run(who_serves, client4(1), VIP4)
    assert farm.node(dead).mac in client.command("ip", "neighbour", "show", VIP4)
    farm.node(dead).die()
    farm.follow(*alive)
    assert farm.node(farm.elected(alive, VIP4)).mac in client.command("ip", "neighbour", "show", VIP4)


def test_a_join_and_a_return_break_no_connection(farm: Farm) -> None:
    farm.follow("n1", "n2")
    client = farm.lab.client
    connections = []
    for vip, source, port in EVERYWHERE:
        connection = client.run(connect, source, vip, 80, port)
        assert connection.recv(10).decode().strip() in ("n1", "n2")
        connections.append(connection)
    first = [still_served_by(connection) for connection in connections]
    farm.follow(*ALL)
    assert [still_served_by(connection) for connection in connections] == first
    assert farm.counters("n3")["second_chance"] > 0
    # New clients are shared by three, also in the buckets that moved.
    new = [client.run(connect, source, vip, 80, port + 1000) for vip, source, port in EVERYWHERE]
    names = [one.recv(10).decode().strip() for one in new]
    assert names == [farm.owner(ALL, source, port + 1000, HashKey.ON_PORT) for _, source, port in EVERYWHERE]
    assert [still_served_by(one) for one in new] == names
    # A node leaves as planned: its own connections end with a reset, all others go on, old and new.
    farm.follow_without("n2")
    for connection, name in [*zip(connections, first, strict=True), *zip(new, names, strict=True)]:
        if name == "n2":
            with pytest.raises(ConnectionError):
                still_served_by(connection)
        else:
            assert still_served_by(connection) == name
        connection.close()


def test_a_closed_node_keeps_its_connections_and_takes_no_new_client(farm: Farm) -> None:
    farm.follow(*ALL)
    client = farm.lab.client
    held = [client.run(connect, source, vip, 80, port) for vip, source, port in EVERYWHERE]
    names = [connection.recv(10).decode().strip() for connection in held]
    view = farm.view(*ALL)
    view["n1"] = Member(view["n1"].macs, open=False)
    for name in ALL:
        farm.node(name).run(farm.vips[name].update, view)
    assert farm.vips["n1"].shares()["web"].buckets == 0
    assert [still_served_by(connection) for connection in held] == names
    fresh = {client.run(who_serves, source, vip, 80, port + 1000) for vip, source, port in EVERYWHERE}
    assert fresh == {"n2", "n3"}
    for connection in held:
        connection.close()


def test_a_picture_shows_owners_connections_and_packets(farm: Farm) -> None:
    assert farm.node("n1").run(farm.vips["n1"].picture) is None
    farm.follow("n1", "n2")
    client = farm.lab.client
    held = [client.run(connect, source, vip, 80, port) for vip, source, port in EVERYWHERE]
    names = [connection.recv(10).decode().strip() for connection in held]
    local = farm.node("n1").run(connect, "", VIP4)
    farm.follow(*ALL)
    owners = [farm.owner(ALL, source, port, HashKey.ON_PORT) for _, source, port in EVERYWHERE]
    for name in ALL:
        picture = farm.node(name).run(farm.vips[name].picture)
        assert picture is not None
        assert (picture.nodes, picture.owners) == (ALL, {"web": farm.owners(ALL)})
        assert {str(use.address): use.resolved_by for use in picture.addresses} == {
            vip: farm.elected(ALL, vip) for vip in (VIP4, VIP6)
        }
        of_itself = 2 * (name == "n1")  # both ends of its own connection are on the address
        assert sum(use.connections for use in picture.addresses) - of_itself == names.count(name)
        away = sum(by == name != owner for by, owner in zip(names, owners, strict=True))
        assert sum(use.elsewhere for use in picture.addresses) == away
        assert (away > 0) is (name != "n3")
        assert picture.packets == farm.counters(name)
    for connection in [*held, local]:
        connection.close()


def test_connections_are_counted_into_a_resource(farm: Farm) -> None:
    farm.follow("n1")
    held = [farm.lab.client.run(connect, client4(number), VIP4) for number in range(3)]
    for connection in held:
        assert connection.recv(10) == b"n1\n"

    async def first_report() -> tuple[str, str]:
        reported: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        work = asyncio.create_task(
            count_connections((ip_address(VIP4),), lambda name, value: reported.put_nowait((name, value)))
        )
        try:
            return await asyncio.wait_for(reported.get(), 20)
        finally:
            work.cancel()

    assert farm.node("n1").run(asyncio.run, first_report()) == (f"connections.{VIP4}", "3")
    for connection in held:
        connection.close()


def test_no_datagram_is_answered_twice_while_the_view_changes(farm: Farm) -> None:
    farm.follow(*ALL)
    for names in (("n1", "n2"), ALL, ("n2", "n3")):
        view = farm.view(*names)
        for name in names:
            farm.node(name).run(farm.vips[name].up, view)
            # Between the steps the nodes disagree; a packet may be lost then, and must not be doubled.
            answers = farm.lab.client.run(datagram_answers, {client4(n): 0 for n in range(20)}, VIP4, 8, 0.1)
            assert max(map(len, answers.values())) == 1
        for name in set(ALL) - set(names):
            farm.down(name)


def test_weights_are_met_and_zero_takes_nothing(farm: Farm, tmp_path: Path) -> None:
    weighted = BalancingGroup("web", WEB.rules, {"n1": 1, "n2": 3, "n3": 0})
    farm = Farm(farm.lab, tmp_path, [weighted])
    farm.follow(*ALL)
    assert {name: farm.vips[name].shares()["web"].buckets for name in ALL} == {"n1": 1024, "n2": 3072, "n3": 0}
    assert farm.vips["n2"].shares()["web"].percent == 75.0
    served = Counter(farm.lab.client.run(who_serves, source, vip, 80, port) for vip, source, port in EVERYWHERE)
    assert served["n3"] == 0
    assert served["n2"] > served["n1"] > 0


def test_each_group_has_its_own_nodes_and_a_rule_its_own_address(farm: Farm, tmp_path: Path) -> None:
    for server in farm.lab.servers.values():
        server.serve(443)
    tcp = Protocol.TCP
    groups = [
        BalancingGroup("web", (BalancingRule(tcp, HashKey.ON_PORT, None, 80),), {"n1": 1}),
        BalancingGroup("tls", (BalancingRule(tcp, HashKey.ON_ADDR, ip_address(VIP4), 443),), {"n2": 1}),
        BalancingGroup("rest", (BalancingRule(tcp, HashKey.ON_ADDR, ip_address(VIP6), None),), {"n3": 1}),
    ]
    farm = Farm(farm.lab, tmp_path, groups)
    farm.follow(*ALL)
    served = {
        (vip, port): {farm.lab.client.run(who_serves, client(n), vip, port) for n in range(8)}
        for vip, client in ((VIP4, client4), (VIP6, client6))
        for port in (80, 443)
    }
    assert served == {(VIP4, 80): {"n1"}, (VIP4, 443): {"n2"}, (VIP6, 80): {"n1"}, (VIP6, 443): {"n3"}}


def test_a_second_apply_writes_nothing(farm: Farm) -> None:
    farm.follow(*ALL)
    view = farm.view(*ALL)
    with watch_rules(farm.node("n1")) as written:
        assert farm.node("n1").run(farm.vips["n1"].update, view) is False
    assert written == []


def test_a_restarted_daemon_goes_on_without_a_write(farm: Farm) -> None:
    farm.follow("n1", "n2")
    farm.follow(*ALL)
    connections = [farm.lab.client.run(connect, source, vip, 80, port) for vip, source, port in EVERYWHERE]
    names = [connection.recv(10).decode().strip() for connection in connections]
    view = farm.view(*ALL)
    for name in ALL:
        with watch_rules(farm.node(name)) as written:
            farm.vips[name] = farm.daemon(name)
            assert farm.node(name).run(farm.vips[name].update, view) is False
        assert written == []
        assert farm.node(name).run(farm.vips[name].held)
    assert [still_served_by(connection) for connection in connections] == names
    for connection in connections:
        connection.close()


def test_rules_that_a_stranger_flushed_are_put_back(farm: Farm) -> None:
    farm.follow(*ALL)
    node, vip = farm.node("n2"), farm.vips["n2"]
    for damage in ("flush ruleset", "delete table arp safekit_web", "delete chain netdev safekit_web ingress_0"):
        node.command("nft", *damage.split())
        assert not node.run(vip.held)
        assert node.run(vip.update, farm.view(*ALL)) is True
        assert node.run(vip.held)


def test_an_address_that_a_stranger_removed_is_put_back(farm: Farm) -> None:
    farm.follow(*ALL)
    node, vip = farm.node("n2"), farm.vips["n2"]
    node.command("ip", "address", "del", f"{VIP4}/32", "dev", "eth0")
    assert not node.run(vip.held)
    assert node.run(vip.update, farm.view(*ALL)) is True
    assert node.run(vip.held)


FOREIGN = """
table inet firewall {
  set friends { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
  chain input {
    type filter hook input priority filter; policy accept;
    ip saddr @friends counter accept
  }
}
table netdev shaping {
  chain in {
    type filter hook ingress device "eth0" priority -100; policy accept;
  }
}
table arp safekit_other {
  chain input {
    type filter hook input priority 0; policy accept;
  }
}
"""


def test_foreign_tables_and_addresses_are_the_same_byte_for_byte(farm: Farm) -> None:
    node = farm.node("n1")
    node.command("nft", "-f", "-", text=FOREIGN)
    node.command("ip", "address", "add", "10.66.0.90/32", "dev", "eth0")
    rules = node.command("nft", "-a", "list", "ruleset")
    addresses = node.addresses()
    farm.follow(*ALL)
    tables = ("inet firewall", "netdev shaping", "arp safekit_other")
    for table in tables:
        assert node.command("nft", "-a", "list", "table", *table.split()) in rules + "\n"
    farm.follow("n1", "n2")
    farm.down("n1")
    assert node.command("nft", "-a", "list", "ruleset") == rules
    assert node.addresses() == addresses


def test_nothing_is_left_after_a_crash_and_a_stop_by_a_new_daemon(farm: Farm, tmp_path: Path) -> None:
    node = farm.node("n3")
    addresses = node.addresses()
    farm.follow(*ALL)
    other = FarmVip("web", farm.service, "n3", "whatever", tmp_path / "n3")
    released = node.run(other.down, True)
    assert set(released.addresses) == {VIP4, VIP6}
    assert node.command("nft", "list", "ruleset") == ""
    assert node.addresses() == addresses
    assert list((tmp_path / "n3").iterdir()) == []


def test_a_view_without_a_members_ethernet_address_changes_nothing(farm: Farm) -> None:
    farm.follow(*ALL)
    view = farm.view(*ALL)
    view["n2"] = Member({VIP4: view["n2"].macs[VIP4]})
    with watch_rules(farm.node("n1")) as written, pytest.raises(VipError, match="node n2 gives no Ethernet address"):
        farm.node("n1").run(farm.vips["n1"].update, view)
    assert written == []


def test_a_filter_that_nftables_refuses_leaves_nothing(farm: Farm, tmp_path: Path) -> None:
    node = farm.node("n1")
    before = node.addresses()
    refused = FarmVip("no name", farm.service, "n1", "identity", tmp_path / "run", ALL)
    with pytest.raises(VipError, match="nftables refused the filter of module no name"):
        node.run(refused.up, farm.view("n1"))
    assert node.addresses() == before
    assert node.command("nft", "list", "ruleset") == ""
    assert list((tmp_path / "run").iterdir()) == []


def test_a_joining_node_that_nobody_knows_yet_harms_no_connection(farm: Farm) -> None:
    farm.follow("n1", "n2")
    client = farm.lab.client
    held = [client.run(connect, source, vip, 80, port) for vip, source, port in EVERYWHERE]
    names = [connection.recv(10).decode().strip() for connection in held]
    # n3 has its filter and its addresses, and may be elected, before the others hear of it.
    farm.node("n3").run(farm.vips["n3"].up, farm.view(*ALL))
    assert [still_served_by(connection) for connection in held] == names
    farm.follow(*ALL)
    assert [still_served_by(connection) for connection in held] == names
    for connection in held:
        connection.close()


def test_every_packet_is_taken_exactly_once_by_the_node_that_the_model_names(farm: Farm, tmp_path: Path) -> None:
    by_port = BalancingGroup("web", (BalancingRule(Protocol.UDP, HashKey.ON_PORT, None, 9),))
    farm = Farm(farm.lab, tmp_path, [by_port])
    client, count = farm.lab.client, 5_000
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
            target = farm.node(farm.elected(names, vip)).mac
            client.run(send_datagrams, client.mac, target, flows, ip_address(vip))
            expected.update(owners[farm.bucket(str(source), port, HashKey.ON_PORT)] for source, port in flows)
        after = {name: farm.counters(name) for name in names}
        taken = {name: sum(after[name][kind] - before[name][kind] for kind in ("local", "taken")) for name in names}
        assert taken == expected
        assert sum(taken.values()) == 2 * count
