"""A farm on three nodes: each client is answered by exactly one of them, whatever happens to the others."""

from __future__ import annotations

import json
from collections import Counter

from tests.nodes import wait_for
from tests.system.clients import Stayer, refused
from tests.system.farm import NAME, PORT, Farm
from tests.system.product import ask, messages, safekit, shown, wait_state

ALL = {"n1", "n2", "n3"}


def test_each_client_has_one_node_and_keeps_it(farm: Farm) -> None:
    first = farm.visitors.once()
    assert set(first.values()) == ALL
    assert farm.visitors.once() == first
    assert min(Counter(first.values()).values()) >= 6


def test_what_is_in_force_is_shown_by_each_node(farm: Farm) -> None:
    served = Counter(farm.visitors.once().values())
    tables = {}
    for node in farm.nodes:
        told = json.loads(safekit(node, f"farm show -m {NAME} --json").out)
        assert (told["node"], told["in_service"], set(told["nodes"])) == (node.name, True, ALL)
        (group,) = told["groups"]
        assert sum(share["buckets"] for share in group["shares"]) == len(group["owners"]) == 4096
        tables[node.name] = [told["nodes"][owner] for owner in group["owners"]]
        (address,) = told["addresses"]
        assert (address["address"], address["resolved_by"] in ALL) == (farm.address, True)
        assert told["packets"]["local"] + told["packets"]["taken"] >= served[node.name]
        counted = ask(node, f"modules/{NAME}/resources/connections.{farm.address}")
        assert int(counted["value"]) >= 0
        assert f"{NAME} on {node.name}, in service: " in safekit(node, f"farm show -m {NAME} --map").out
    assert tables["n1"] == tables["n2"] == tables["n3"]


def test_death_of_a_node_moves_its_clients_only_and_they_return_with_it(farm: Farm) -> None:
    before = farm.visitors.once()
    farm.nodes[2].power_cut()
    after = farm.wait_shared({"n1", "n2"})
    assert {who for who in before if before[who] != after[who]} == {who for who in before if before[who] == "n3"}
    farm.nodes[2].power_on()
    wait_state(farm.nodes[2], NAME, "UP")
    assert farm.wait_shared(ALL) == before


def test_stop_and_start_of_a_node_disturb_its_own_clients_only(farm: Farm) -> None:
    node = farm.nodes[1]
    before = farm.visitors.once()
    running = farm.visitors.start()
    safekit(node, f"stop -m {NAME}")
    wait_state(node, NAME, "STOP", substate="NotReady")
    farm.wait_shared({"n1", "n3"})
    safekit(node, f"start -m {NAME}")
    wait_state(node, NAME, "UP")
    farm.wait_shared(ALL)
    rounds = farm.visitors.stop(running)
    # Its application ends before it gives its share up, and begins after it took it (spec §5.1).
    strangers = [answers | {who: "" for who, name in before.items() if name == node.name} for answers in rounds]
    assert refused(strangers) == []
    for answers in strangers:
        assert {who: name for who, name in answers.items() if name} == {
            who: name for who, name in before.items() if name != node.name
        }
    assert rounds[-1] == before


def test_a_stop_gives_new_clients_away_and_waits_for_those_who_are_connected(farm: Farm) -> None:
    node, client = farm.nodes[1], farm.lab.client
    source = min(who for who, name in farm.visitors.once().items() if name == node.name)
    with Stayer(client, farm.address, PORT, source) as stayer:
        stayer.await_answers()
        stopping = node.start(f"safekit stop -m {NAME}")

        def draining() -> bool:
            told = json.loads(safekit(node, f"farm show -m {NAME} --json").out)
            return (told["open"], told["addresses"][0]["connections"]) == (False, 1) and told["drains_for_s"] > 0

        wait_for("it drains", draining, timeout=60, every=0.3)
        assert "(draining: stops when" in safekit(node, f"farm show -m {NAME}").out
        farm.wait_shared({"n1", "n3"})
        stayer.await_answers()
        assert shown(node, NAME) == "UP Transient"
        assert stayer.end() == {node.name}
    wait_state(node, NAME, "STOP", substate="NotReady")
    stopping.wait(60)
    assert "farm drain ends: no connection is left" in messages(node, NAME)
    safekit(node, f"start -m {NAME}")
    wait_state(node, NAME, "UP")


def test_what_belongs_to_others_on_the_node_stays_as_it_was(farm: Farm) -> None:
    node = farm.nodes[0]
    device = json.loads(node.out(["ip", "-json", "route", "get", farm.nodes[1].address]))[0]["dev"]
    foreign = f"{farm.address.rsplit('.', 1)[0]}.90"
    rules = "table inet of_somebody {\n chain input { type filter hook input priority 5; tcp dport 9 counter drop; }\n}"
    node.run(["nft", "-f", "-"], input=rules.encode())
    node.run(f"ip addr add {foreign}/24 dev {device}; systemd-run --quiet --unit=of-somebody sleep 900")
    look = f"nft list table inet of_somebody; ip -o addr show to {foreign}; systemctl show -P MainPID of-somebody"
    before = node.out(look)
    try:
        safekit(node, f"restart -m {NAME}")
        wait_state(node, NAME, "UP")
        safekit(node, f"stop -m {NAME}")
        wait_state(node, NAME, "STOP", substate="NotReady")
        assert node.out(look) == before
        safekit(node, f"start -m {NAME}")
        wait_state(node, NAME, "UP")
        node.run(["systemctl", "restart", "safekitd"])
        wait_state(node, NAME, "UP")
        assert node.out(look) == before
    finally:
        node.run(
            f"nft delete table inet of_somebody; ip addr del {foreign}/24 dev {device}; systemctl stop of-somebody"
        )
