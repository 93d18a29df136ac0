"""Rules and groups of a farm on real wires: every kind of rule, and several modules on one node (spec §3.5, §5.3)."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest

from safekit.vip.service import BalancingGroup, BalancingRule, HashKey, Protocol, VirtualAddress
from tests.netns.conftest import ALL, WEB, Farm
from tests.netns.lab import (
    VIP4,
    VIP6,
    Lab,
    arp_answers,
    client4,
    client6,
    connect,
    neighbour_answers,
    ping_answers,
    send_datagrams,
    who_serves,
)

pytestmark = pytest.mark.netns
UDP, TCP = Protocol.UDP, Protocol.TCP


def test_under_an_arp_rule_the_node_of_the_asker_answers_alone(farm: Farm, tmp_path: Path) -> None:
    shared = BalancingGroup("web", (BalancingRule(TCP, HashKey.ON_ADDR, None, 80),), asked=(None,))
    farm = Farm(farm.lab, tmp_path, [shared])
    client = farm.lab.client
    for names in (ALL, ("n1", "n3")):
        if names != ALL:
            farm.node("n2").die()
        farm.follow(*names)
        for number in range(8):
            owners = [farm.owner(names, ask(number), 0, HashKey.ON_ADDR) for ask in (client4, client6)]
            macs = [[farm.node(str(owner)).mac] for owner in owners]
            assert client.run(arp_answers, client.mac, client4(number), VIP4, 0.1) == macs[0]
            assert client.run(neighbour_answers, client.mac, client6(number), VIP6, 0.1) == macs[1]
            assert client.run(who_serves, client4(number), VIP4) == owners[0]
            assert client.run(who_serves, client6(number), VIP6) == owners[1]


def test_an_arp_rule_for_one_address_leaves_the_other_to_the_elected_node(farm: Farm, tmp_path: Path) -> None:
    groups = [
        WEB,
        BalancingGroup("answers", (), {"n3": 1}, asked=(ip_address(VIP4),)),
    ]
    farm = Farm(farm.lab, tmp_path, groups)
    farm.follow(*ALL)
    client = farm.lab.client
    for number in range(4):
        answered = client.run(arp_answers, client.mac, client4(number), VIP4, 0.1)
        assert answered == [farm.node("n3").mac]
        answered = client.run(neighbour_answers, client.mac, client6(number), VIP6, 0.1)
        assert answered == [farm.node(farm.elected(ALL, VIP6)).mac]


def test_a_return_draws_nobody_from_the_node_that_answers_him(farm: Farm, tmp_path: Path) -> None:
    shared = BalancingGroup("web", (BalancingRule(TCP, HashKey.ON_ADDR, None, 80),), asked=(None,))
    farm = Farm(farm.lab, tmp_path, [shared])
    farm.follow("n1", "n2")
    client = farm.lab.client
    client.run(who_serves, client4(1), VIP4)
    known = client.command("ip", "neighbour", "show", VIP4).split()[4]
    for _ in range(2):
        farm.follow(*ALL)
        assert client.command("ip", "neighbour", "show", VIP4).split()[4] == known
        farm.down("n3")


def test_datagrams_of_one_client_are_spread_by_their_identification(farm: Farm, tmp_path: Path) -> None:
    logs = BalancingGroup(
        "logs", (BalancingRule(UDP, HashKey.ON_IPID, None, 514), BalancingRule(UDP, HashKey.ON_ADDR, None, 9))
    )
    farm = Farm(farm.lab, tmp_path, [logs])
    farm.follow(*ALL)
    client, source, count = farm.lab.client, client4(3), 3_000
    before = {name: farm.counters(name) for name in ALL}
    target = farm.node(farm.elected(ALL, VIP4)).mac
    flows = [(ip_address(source), number) for number in range(1, count + 1)]
    client.run(send_datagrams, client.mac, target, flows, ip_address(VIP4), 514, True)
    after = {name: farm.counters(name) for name in ALL}
    taken = Counter({name: sum(after[name][kind] - before[name][kind] for kind in ("local", "taken")) for name in ALL})
    owners = farm.owners(ALL)
    assert taken == Counter(owners[farm.bucket(source, number, HashKey.ON_IPID)] for _, number in flows)
    assert min(taken.values()) > count / 4


def test_two_modules_on_a_node_do_not_know_of_each_other(lab: Lab, tmp_path: Path) -> None:
    for server in lab.servers.values():
        server.serve(80)
        server.serve(443)
    tls = BalancingGroup("web", (BalancingRule(TCP, HashKey.ON_PORT, None, 443),))
    others = ("10.66.0.101", "fd66::101")
    web = Farm(lab, tmp_path / "web")
    shop = Farm(lab, tmp_path / "shop", [tls], [VirtualAddress(ip_address(one)) for one in others], "shop")
    web.follow(*ALL)
    shop.follow("n1", "n2")
    client = lab.client

    def served(farm: Farm, addresses: tuple[str, str], port: int) -> set[str]:
        ends = [(addresses[0], client4(n), 30000 + n) for n in range(12)]
        ends += [(addresses[1], client6(n), 30000 + n) for n in range(12)]
        answers = {(source, at): client.run(who_serves, source, vip, port, at) for vip, source, at in ends}
        names = ALL if farm is web else ("n1", "n2")
        assert answers == {(source, at): farm.owner(names, source, at, HashKey.ON_PORT) for _, source, at in ends}
        return set(answers.values())

    assert served(web, (VIP4, VIP6), 80) == set(ALL)
    assert served(shop, others, 443) == {"n1", "n2"}
    for vip, port in ((VIP4, 443), (others[0], 80)):
        with pytest.raises(ConnectionRefusedError):
            client.run(connect, client4(1), vip, port)
    text = lab.servers["n1"].command("nft", "list", "table", "netdev", "safekit_shop")
    web.down("n1")
    assert (
        lab.servers["n1"].command("nft", "list", "table", "netdev", "safekit_shop").split("chain")[1:]
        == text.split("chain")[1:]
    )
    web.follow("n2", "n3")
    assert served(shop, others, 443) == {"n1", "n2"}
    assert {client.run(who_serves, client4(n), VIP4) for n in range(12)} == {"n2", "n3"}


def test_a_ping_reaches_one_node_also_when_the_first_group_has_no_service(farm: Farm, tmp_path: Path) -> None:
    farm = Farm(farm.lab, tmp_path, [BalancingGroup("answers", (), asked=(None,)), WEB])
    farm.follow(*ALL)
    for number in range(3):
        assert farm.lab.client.run(ping_answers, client4(number), VIP4) == 1
        assert farm.lab.client.run(ping_answers, client6(number), VIP6) == 1
