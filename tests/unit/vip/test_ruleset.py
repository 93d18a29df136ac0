"""The text of the filter: pinned by golden files, and read by nft itself.

`SAFEKIT_WRITE_GOLDEN=1 pytest tests/unit/vip` writes the files anew.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from safekit.vip import ruleset
from safekit.vip.kept import ANYBODY
from safekit.vip.ruleset import FarmRules, difference, removal, replacement
from safekit.vip.service import BalancingGroup, BalancingRule, Flow, HashKey, Placement, Protocol, VipError
from safekit.vip.services import answering, services

GOLDEN = Path(__file__).parent / "golden"
TCP, UDP = Protocol.TCP, Protocol.UDP
ADDR, PORT, IPID = HashKey.ON_ADDR, HashKey.ON_PORT, HashKey.ON_IPID
FOUR = Placement(ip_address("10.0.0.100"), "eth0", 2, "02:00:00:00:00:01", ip_address("10.0.0.1"))
SIX = Placement(ip_address("fd00::100"), "eth0", 2, "02:00:00:00:00:01", ip_address("fd00::1"))
OTHER_WIRE = Placement(ip_address("10.9.0.100"), "eth1", 3, "02:00:00:00:01:01", ip_address("10.9.0.1"))
WEB = BalancingGroup("web", (BalancingRule(TCP, PORT, None, 80), BalancingRule(UDP, ADDR, None, 53)))
LOGS = BalancingGroup(
    "logs",
    (
        BalancingRule(UDP, IPID, None, 514),
        BalancingRule(TCP, ADDR, ip_address("10.0.0.100"), 443),
        BalancingRule(TCP, ADDR, ip_address("fd00::100"), None),
    ),
)
ASKED = replace(WEB, asked=(None,))
MAC = {"n2": "02:00:00:00:00:02", "n3": "02:00:00:00:00:03"}


def rules(
    *members: str, groups: Sequence[BalancingGroup] = (WEB,), placements: Sequence[Placement] = (FOUR, SIX)
) -> FarmRules:
    """Eight buckets, dealt in turn: enough to see every kind of line."""
    nodes = ("n1", *members)
    owners = tuple(tuple(nodes[bucket % len(nodes)] for bucket in range(8)) for _ in groups)
    wires = {p.interface for p in placements}
    macs = {
        name: {wire: MAC[name].replace("00:00:00", f"00:0{len(wire) - 4}:0{wire[-1]}") for wire in sorted(wires)}
        for name in members
    }
    return FarmRules("web", "n1", 0x5AFE, tuple(placements), tuple(groups), macs, owners, ({},) * len(groups))


ALONE = replace(rules(), answers=frozenset({FOUR.address, SIX.address}))
THREE = replace(rules("n2", "n3"), answers=frozenset({SIX.address}))
JOINED = replace(THREE, former=({0: "n2", 3: "n3"},))
MOVED = replace(THREE, former=({0: "n2", 3: ANYBODY},), lost=(frozenset({1, 4}),), ring=("n0", "n1", "n2", "n3", "n4"))
MOVED_AGAIN = replace(MOVED, members={"n3": MOVED.members["n3"]}, owners=(("n1", "n3") * 4,), former=({0: "n3"},))
GROUPS = rules("n2", groups=(WEB, LOGS))
WIRES = rules("n2", placements=(FOUR, OTHER_WIRE))
SHARED = replace(rules("n2", groups=(LOGS, ASKED)), answers=frozenset({FOUR.address}))
SHARED_JOINED = replace(
    rules("n2", "n3", groups=(LOGS, ASKED)), former=({}, {0: "n2"}), answers=frozenset({SIX.address})
)
VMAC = "5a:fe:0a:00:00:64"
UNSEEN = replace(
    rules("n2", "n3", groups=(WEB, LOGS), placements=(replace(FOUR, vmac=VMAC), replace(SIX, vmac=VMAC))),
    answers=frozenset({SIX.address}),
)
UNSEEN_JOINED = replace(UNSEEN, former=({0: "n2", 3: "n3"}, {}), answers=frozenset({FOUR.address}))
UNSEEN_MOVED = replace(UNSEEN_JOINED, former=({0: "n2", 3: ANYBODY}, {}), lost=(frozenset({2}), frozenset({4})))
UNSEEN_ALONE = replace(rules(groups=(WEB, LOGS), placements=UNSEEN.placements), answers=frozenset({FOUR.address}))
ON_BOND = replace(FOUR, interface="bond0", vmac=VMAC)
BESIDE_IT = Placement(ip_address("10.0.0.101"), "bond0", 2, FOUR.mac, FOUR.source)
ON_VLAN = replace(OTHER_WIRE, interface="bond0.100")
SIX_ON_VLAN = replace(SIX, interface="eth0.7", index=4, vmac="5a:fe:00:00:01:00")
BOND = replace(
    rules("n2"),
    placements=(ON_BOND, BESIDE_IT, ON_VLAN, SIX_ON_VLAN),
    members={"n2": {"bond0": MAC["n2"], "bond0.100": "02:00:00:00:01:02", "eth0.7": "02:00:00:00:02:02"}},
    answers=frozenset({ON_BOND.address, SIX.address}),
)
FLOWS = (
    Flow(ip_address("192.0.2.7"), 40000, FOUR.address, 80),
    Flow(ip_address("fd00::7"), 40001, SIX.address, 80),
)
CASES = {
    "alone": replacement(ALONE),
    "three_nodes": replacement(THREE),
    "second_chance": replacement(JOINED, FLOWS),
    "several_groups": replacement(GROUPS),
    "two_interfaces": replacement(WIRES),
    "moved_twice": replacement(MOVED, FLOWS),
    "a_node_joins": removal("web") + "".join(difference(ALONE, JOINED, FLOWS) or ""),
    "answers_shared": replacement(SHARED),
    "unseen": replacement(UNSEEN_JOINED, FLOWS),
    "vlan_and_bond": replacement(BOND),
    "removal": removal("web"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_the_golden_one(name: str) -> None:
    path = GOLDEN / f"{name}.nft"
    if os.environ.get("SAFEKIT_WRITE_GOLDEN"):
        path.write_text(CASES[name])
    assert CASES[name] == path.read_text()


@pytest.mark.parametrize("name", sorted(set(CASES) - {"a_node_joins"}))
def test_nft_understands_the_text(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("nft needs root")
    # A network of its own with the interfaces that the rules hook.
    wires = ("eth0", "eth1", "bond0", "bond0.100", "eth0.7")
    made = [f"ip link add {wire} type veth peer name peer{number}" for number, wire in enumerate(wires)]
    script = " && ".join([*made, "nft -c -f -"])
    answer = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        input=CASES[name],
        text=True,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")


STEPS = [(ALONE, THREE), (THREE, JOINED), (JOINED, ALONE), (ALONE, JOINED), (JOINED, THREE), (THREE, ALONE)]
STEPS += [(SHARED, SHARED_JOINED), (SHARED_JOINED, SHARED)]
STEPS += [(THREE, MOVED), (MOVED, MOVED_AGAIN), (MOVED_AGAIN, MOVED), (MOVED, JOINED), (MOVED_AGAIN, ALONE)]
STEPS += [(UNSEEN, UNSEEN_MOVED), (UNSEEN_MOVED, UNSEEN_ALONE), (UNSEEN_JOINED, UNSEEN_MOVED)]
STEPS += [(UNSEEN_ALONE, UNSEEN_JOINED), (UNSEEN_JOINED, UNSEEN), (UNSEEN, UNSEEN_ALONE)]


@pytest.mark.parametrize(("old", "new"), STEPS)
def test_a_difference_ends_where_a_replacement_does(old: FarmRules, new: FarmRules) -> None:
    if os.geteuid() != 0:
        pytest.skip("nft needs root")
    changed = difference(old, new)
    assert changed is not None
    assert _loaded(replacement(old), changed) == _loaded(replacement(new))


def _loaded(*transactions: str) -> list[str]:
    """What the kernel has after these transactions, in an order that does not depend on history."""
    program = "ip link add eth0 type veth peer name peer0 || exit 1\n"
    program += "".join(f"nft -f - <<'END' || exit 1\n{text}END\n" for text in transactions) + "nft -s list ruleset\n"
    answer = subprocess.run(
        ["unshare", "-n", "sh"], input=program, text=True, capture_output=True, timeout=20, check=False
    )
    assert answer.returncode == 0, answer.stderr
    blocks = re.split(r"\n(?=\t(?:chain|map|set|counter) |table )", answer.stdout)
    return sorted(re.sub(r"[\s}]+$", "", block) for block in blocks)


def test_equal_rules_need_no_transaction_and_another_configuration_a_whole_one() -> None:
    assert difference(THREE, THREE) == ""
    assert difference(THREE, GROUPS) is None
    assert difference(THREE, replace(THREE, placements=(FOUR,))) is None


def test_every_fact_is_in_the_digest() -> None:
    different = [
        ALONE,
        THREE,
        JOINED,
        MOVED,
        replace(MOVED, ring=()),
        replace(MOVED, lost=(frozenset({1, 5}),)),
        GROUPS,
        WIRES,
        UNSEEN,
        UNSEEN_JOINED,
        BOND,
        replace(THREE, seed=1),
        replace(THREE, answers=frozenset()),
    ]
    assert len({one.digest for one in different}) == len(different)


def test_only_tables_of_the_module_are_named() -> None:
    for text in CASES.values():
        named = re.findall(r"^(?:table|delete table) (\S+) (\S+)", text, re.MULTILINE)
        assert {name for _, name in named} == {"safekit_web"}
        assert {family for family, _ in named} <= {"netdev", "arp", "ip6"}
        assert "flush ruleset" not in text


def test_a_rule_for_one_address_goes_before_one_for_all_and_a_port_before_every_port() -> None:
    all_ports = BalancingRule(TCP, ADDR, None, None)
    one_port = BalancingRule(TCP, PORT, None, 80)
    one_address = BalancingRule(TCP, ADDR, FOUR.address, 80)
    groups = (BalancingGroup("a", (all_ports, one_port)), BalancingGroup("b", (one_address,)))
    found = services(groups, (FOUR.address, SIX.address))
    assert found.of(FOUR.address, TCP, 80) == (ADDR, 1)
    assert found.of(SIX.address, TCP, 80) == (PORT, 0)
    assert found.of(SIX.address, TCP, 81) == (ADDR, 0)
    assert found.of(SIX.address, UDP, 80) is None
    assert services(groups[::-1], (FOUR.address, SIX.address)).of(FOUR.address, TCP, 80) == (ADDR, 0)


def test_an_arp_rule_for_one_address_goes_before_one_for_all() -> None:
    groups = (replace(WEB, asked=(None,)), replace(LOGS, asked=(SIX.address,)))
    assert answering(groups, (FOUR.address, SIX.address)) == {FOUR.address: 0, SIX.address: 1}
    assert answering(groups[::-1], (FOUR.address, SIX.address)) == {FOUR.address: 1, SIX.address: 0}
    assert answering((WEB,), (FOUR.address,)) == {}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((None, None), r'group "web": a second rule decides about arp of 10\.0\.0\.100'),
        ((ip_address("10.0.0.7"),), r'group "web": the rule for arp names 10\.0\.0\.7, no address of this module'),
    ],
)
def test_arp_rules_that_contradict_are_refused(asked: tuple[Any, ...], message: str) -> None:
    with pytest.raises(VipError, match=message):
        answering((replace(WEB, asked=asked),), (FOUR.address,))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (BalancingRule(TCP, PORT, None, 80), r'group "web": a second rule decides about tcp port 80 of 10\.0\.0\.100'),
        (
            BalancingRule(TCP, PORT, ip_address("10.0.0.7"), 81),
            r'group "web": the rule for tcp port 81 names 10\.0\.0\.7, no address of this module',
        ),
        (
            BalancingRule(TCP, IPID, None, 514),
            r'group "web": the rule for tcp port 514 has filter on_ipid, which exists for udp on IPv4 only',
        ),
        (BalancingRule(UDP, IPID, SIX.address, None), r"the rule for udp port \* has filter on_ipid"),
    ],
)
def test_rules_that_contradict_are_refused(rule: BalancingRule, message: str) -> None:
    with pytest.raises(VipError, match=message) as refused:
        services((replace(WEB, rules=(*WEB.rules, rule)),), (FOUR.address, SIX.address))
    assert refused.value.code == "vip.service"
    assert refused.value.facts["group"] == "web"


def test_a_node_whose_name_nft_cannot_write_has_a_name_of_its_own() -> None:
    odd = replace(THREE, members={"bücher server": THREE.members["n2"]}, owners=(("n1", "bücher server") * 4,))
    assert "bücher" not in replacement(odd)
    assert ruleset.table_name("web") in replacement(odd)
