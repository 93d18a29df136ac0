"""Groups, rules and weights that change while the farm serves (spec §3.5, §5.3): together, in turn, and nobody is disturbed."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from safekit.vip.farm import FarmVip
from safekit.vip.service import BalancingGroup, BalancingRule, HashKey, Protocol
from tests.netns.conftest import ALL, EVERYWHERE, IDENTITY, WEB, Farm
from tests.netns.lab import VIP4, client4, connect, still_served_by, watch_rules, who_serves
from tests.netns.test_invisible import UNSEEN

pytestmark = pytest.mark.netns
WEIGHTED = replace(WEB, powers={"n1": 1, "n2": 6, "n3": 1})
TLS = BalancingGroup("tls", (BalancingRule(Protocol.TCP, HashKey.ON_PORT, None, 443),))


@pytest.fixture(params=["directed", "invisible"])
def serving(request: pytest.FixtureRequest, farm: Farm, tmp_path: Path) -> Farm:
    """A farm that serves with equal shares, in either technique."""
    made = Farm(farm.lab, tmp_path, addresses=UNSEEN) if request.param == "invisible" else farm
    made.follow(*ALL)
    return made


def configured(farm: Farm, tmp_path: Path, *groups: BalancingGroup) -> None:
    """Every node has another configuration, and none follows it yet."""
    farm.service = replace(farm.service, groups=groups)
    farm.vips = {
        name: FarmVip(farm.module, farm.service, name, IDENTITY, tmp_path / name, ALL) for name in farm.lab.servers
    }


def held(farm: Farm) -> tuple[list[socket.socket], list[str]]:
    """Connections of many clients, and who has them."""
    connections = [farm.lab.client.run(connect, source, vip, 80, port) for vip, source, port in EVERYWHERE]
    return connections, [connection.recv(10).decode().strip() for connection in connections]


def new_clients(farm: Farm, first_port: int) -> list[str]:
    return [farm.lab.client.run(who_serves, source, vip, 80, first_port + port) for vip, source, port in EVERYWHERE]


def test_weights_change_on_all_nodes_together_and_no_connection_breaks(serving: Farm, tmp_path: Path) -> None:
    connections, names = held(serving)
    before = new_clients(serving, 1000)
    configured(serving, tmp_path, WEIGHTED)
    view = serving.view(*ALL)
    for name in ALL:
        node, vip = serving.node(name), serving.vips[name]
        with watch_rules(node) as written:
            assert node.run(vip.update, view, ALL, False) is False
        assert written == [], "somebody does not have it yet: nothing moves"
    assert serving.vips["n2"].shares()["web"].buckets < 1500
    followed: Sequence[str] = ()
    for turn in range(2):
        for name in ALL:
            serving.node(name).run(serving.vips[name].update, view, followed, True)
            if not serving.invisible:  # there a bucket is nobody's from turn to turn, and clients repeat themselves
                assert [still_served_by(connection) for connection in connections] == names, (turn, name)
                assert len(new_clients(serving, 2000 + 10_000 * turn)) == len(EVERYWHERE)
        followed = ALL
    assert {name: serving.vips[name].shares()["web"].buckets for name in ALL} == {"n1": 512, "n2": 3072, "n3": 512}
    expected = [serving.owner(ALL, source, 1000 + port, HashKey.ON_PORT) for _, source, port in EVERYWHERE]
    assert new_clients(serving, 1000) == expected != before
    assert [still_served_by(connection) for connection in connections] == names
    for connection in connections:
        connection.close()


def test_a_group_comes_and_goes_and_the_others_serve_on(serving: Farm, tmp_path: Path) -> None:
    for server in serving.lab.servers.values():
        server.serve(443)
    connections, names = held(serving)
    client = serving.lab.client
    for groups in ((TLS, WEB), (WEB,)):
        configured(serving, tmp_path, *groups)
        view = serving.view(*ALL)
        for followed in ((), ALL):
            for name in ALL:
                serving.node(name).run(serving.vips[name].update, view, followed, True)
        assert [still_served_by(connection) for connection in connections] == names
        if TLS in groups:
            assert {client.run(who_serves, client4(n), VIP4, 443) for n in range(20)} == set(ALL)
        else:
            with pytest.raises(ConnectionRefusedError):
                client.run(connect, client4(1), VIP4, 443)
    for connection in connections:
        connection.close()


def generation() -> int:
    """How many transactions nftables took in this network."""
    netfilter, question, number = 12, 10 << 8 | 16, 1
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netfilter) as channel:
        channel.bind((0, 0))
        channel.settimeout(10)
        channel.send(struct.pack("=IHHIIBBH", 20, question, 1, 1, 0, 0, 0, 0))
        answer = channel.recv(4096)
    length, kind = struct.unpack_from("=HH", answer, 20)
    assert (length, kind) == (8, number)
    return int(struct.unpack_from(">I", answer, 24)[0])


def test_a_change_is_one_transaction(farm: Farm, tmp_path: Path) -> None:
    farm.follow(*ALL)
    node, view = farm.node("n1"), farm.view(*ALL)
    for groups in ((WEIGHTED,), (WEIGHTED, TLS)):
        configured(farm, tmp_path, *groups)
        before = node.run(generation)
        assert node.run(farm.vips["n1"].update, view, ALL, True) is True
        assert node.run(generation) == before + 1
